"""Any Python function as a teacher."""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

from limbeck.errors import ConfigError
from limbeck.teachers.imports import full_name, plain_source
from limbeck.teachers.local import LocalTeacher, Said, fingerprint_of

Rows = list[dict[str, object]]
AnswerFunction = Callable[[Rows], ArrayLike | tuple[ArrayLike, ArrayLike]]


class CallableTeacher(LocalTeacher):
    """A function from rows to probabilities.

    Args:
        function: Takes n rows, each a dict of the teacher's columns; gives probabilities at
            temperature 1 of shape (n, C), as array, tensor or lists, or a tuple of these and of
            embeddings of shape (n, D).
        classes: Class names, in the order of the probabilities.
        columns: Columns that the function sees; a question is their content.
        fingerprint: Anything that changes when the answers would. Default: made of the source
            file and the name of the function, which knows nothing of weights that it loads.

    Raises:
        ConfigError: no fingerprint is given, and the name and the source file do not say which
            function it is: a lambda, a closure, a method, an object, something typed in.
    """

    def __init__(
        self,
        function: AnswerFunction,
        classes: Sequence[str],
        columns: Sequence[str],
        *,
        fingerprint: str | None = None,
    ) -> None:
        self.classes, self.columns = tuple(classes), tuple(columns)
        self.name = f"teacher {full_name(function)}"
        self._function = function
        version = fingerprint if fingerprint is not None else plain_source(function)
        if version is None:
            raise ConfigError(
                f"{self.name} cannot be told from others by name and source file, expected a "
                f"function of a module; pass fingerprint=, a text that changes with its answers."
            )
        self.fingerprint = fingerprint_of(
            "callable", full_name(function), version, *self.classes, "|", *self.columns
        )

    def say(self, rows: pa.RecordBatch) -> Said:
        """Call the function with rows as dicts."""
        if rows.num_rows == 0:
            return Said(np.zeros((0, len(self.classes))))  # a list of no rows has no width
        said = self._function(rows.select(list(self.columns)).to_pylist())
        # Two rows of numbers in a tuple are probabilities; two matrices are these and embeddings.
        if isinstance(said, tuple) and len(said) == 2 and np.ndim(said[0]) == 2:
            return Said(said[0], said[1])
        return Said(said)  # type: ignore[arg-type]  # whatever else it is, the base class checks it
