"""A fitted scikit-learn estimator as a teacher, from a skops file or a factory; never a pickle."""

import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from limbeck.data.columns import label_column
from limbeck.data.schema import Schema
from limbeck.errors import ConfigError, LimbeckError, missing_extra, one_line
from limbeck.teachers.local import LocalTeacher, Said, fingerprint_of


class Estimator(Protocol):
    """What is used of a fitted classifier or pipeline."""

    classes_: Sequence[object]

    def predict_proba(self, rows: object) -> ArrayLike:
        """Probabilities, shape (n, C)."""


class SklearnTeacher(LocalTeacher):
    """A fitted estimator, or a pipeline that ends in one, as a teacher.

    It is given what it was fitted on: a list of strings where it sees one text column; a float64
    matrix (n, k) where it sees numbers, missing ones as NaN; else a matrix of objects, strings
    where the column is text or a category. An estimator that knows names of columns
    (`feature_names_in_`) sees these: as a DataFrame, or as an Arrow table where pandas is not
    installed.

    Args:
        estimator: Fitted, with `predict_proba` and `classes_`.
        schema: The task, for the kinds of the columns.
        fingerprint: Anything that changes when the answers would, such as the file's hash.
        classes: Class names in the order of `classes_`. Default: `classes_`, written
            as labels are: the numbers 1 and 1.0 are "1".
        columns: Columns that it sees. Default: those that it was fitted on, or all inputs.

    Raises:
        ConfigError: it is no fitted estimator, gives no probabilities, or does not fit the columns.
    """

    embeds = False

    def __init__(
        self,
        estimator: object,
        schema: Schema,
        *,
        fingerprint: str,
        classes: Sequence[str] = (),
        columns: Sequence[str] = (),
    ) -> None:
        self.name = f"sklearn teacher {type(estimator).__name__}"
        self._estimator = _checked(estimator, self.name)
        self.classes = _classes(self._estimator, classes, self.name)
        names = tuple(str(name) for name in getattr(estimator, "feature_names_in_", ()))
        self.columns = tuple(columns) or names or schema.inputs
        self._names = names
        self._numeric = set(schema.numeric)
        self._one_text = not names and len(self.columns) == 1 and self.columns[0] in schema.text
        self._check_columns(schema)
        self.fingerprint = fingerprint_of(
            "sklearn", fingerprint, *self.classes, "|", *self.columns, "|", *names
        )

    def say(self, rows: pa.RecordBatch) -> Said:
        """Run the estimator over rows."""
        if rows.num_rows == 0:
            return Said(np.zeros((0, len(self.classes))))
        with warnings.catch_warnings():
            # Older scikit-learn sees no names in an Arrow table, whose columns are in their order.
            warnings.filterwarnings("ignore", "X does not have valid feature names")
            return Said(self._estimator.predict_proba(self._inputs(rows)))

    def _inputs(self, rows: pa.RecordBatch) -> object:
        if self._one_text:
            return rows.column(self.columns[0]).to_pylist()
        if self._names:
            table = pa.Table.from_batches([rows.select(list(self._names))])
            frame: object = table.to_pandas() if find_spec("pandas") else table
            return frame
        # Objects beside numbers make a matrix of objects.
        return np.stack([self._values(rows, name) for name in self.columns], axis=1)

    def _values(self, rows: pa.RecordBatch, name: str) -> NDArray[np.generic]:
        column = rows.column(name)
        if name in self._numeric:
            return np.asarray(column.to_numpy(zero_copy_only=False), np.float64)
        return np.array(column.to_pylist(), dtype=object)

    def _check_columns(self, schema: Schema) -> None:
        """Refuse columns that are not there, images, and another number than it was fitted on."""
        for name in (*self.columns, *self._names):
            if name not in schema.inputs or name not in self.columns:
                raise ConfigError(
                    f"{self.name} was fitted on a column {name!r} but sees {list(self.columns)} of "
                    f"the inputs {list(schema.inputs)}; give the rows that column, or fit it on "
                    f"what they have."
                )
            if name in schema.image:
                raise ConfigError(
                    f"{self.name} sees the image column {name!r}, which no estimator reads; name "
                    f"other columns in teacher.columns, or write a callable teacher."
                )
        wanted = getattr(self._estimator, "n_features_in_", None)
        if wanted is not None and not self._one_text and wanted != len(self.columns):
            raise ConfigError(
                f"{self.name} was fitted on {wanted} columns but sees {len(self.columns)}: "
                f"{list(self.columns)}; name those that it was fitted on in teacher.columns, in "
                f"that order."
            )


def load_estimator(path: Path, trusted: Sequence[str] = ()) -> object:
    """Read an estimator that `skops.io.dump` wrote.

    Args:
        path: The skops file. A pickle or joblib file is never opened.
        trusted: Full names of types that may be built though skops does not know them.

    Raises:
        ConfigError: there is no such file, it is no skops file, or it holds other types.
        MissingExtraError: skops is not installed.
    """
    if not path.is_file():
        raise ConfigError(f"there is no file {path}; give teacher.path a file of skops.io.dump.")
    if not _is_skops(path):
        raise ConfigError(
            f"{path} is not a skops file; pickle and joblib files can run any code when they are "
            f"opened, so they are never read: load it yourself where you trust it, and convert it "
            f"with skops.io.dump(estimator, '{path.with_suffix('.skops').name}')."
        )
    try:
        import skops.io
    except ImportError as error:
        raise missing_extra("skops", "sklearn") from error
    try:
        unknown = set(skops.io.get_untrusted_types(file=path)) - set(trusted)
        if unknown:
            listed = ", ".join(sorted(unknown))
            raise ConfigError(
                f"{path} holds types that skops does not know to be safe: {listed}; if you trust "
                f"whoever made the file, name each of them in teacher.trusted."
            )
        estimator: object = skops.io.load(path, trusted=list(trusted))
    except LimbeckError:
        raise
    except Exception as error:  # a damaged file may fail in any part of it
        raise ConfigError(
            f"{path} cannot be read ({type(error).__name__}: {one_line(error)}); "
            f"write it again with skops.io.dump, by versions of skops and scikit-learn that are "
            f"installed here."
        ) from error
    return estimator


def made_by(factory: Callable[[], object], spec: str) -> object:
    """Call a factory of an estimator.

    Raises:
        ConfigError: it raises; the message tells what.
    """
    try:
        return factory()
    except LimbeckError:
        raise
    except Exception as error:
        raise ConfigError(
            f"teacher.factory={spec!r} raised {type(error).__name__}: {one_line(error)}; "
            f"it must give a fitted estimator when called without arguments."
        ) from error


def _is_skops(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return "schema.json" in archive.namelist()


def _checked(estimator: object, name: str) -> Estimator:
    """The same object, when it is a fitted classifier that gives probabilities."""
    if isinstance(estimator, type) or not hasattr(estimator, "fit"):
        raise ConfigError(
            f"{name}: expected a fitted scikit-learn estimator or pipeline, got "
            f"{estimator!r:.80}; give an object with predict_proba and classes_."
        )
    if not hasattr(estimator, "predict_proba"):
        raise ConfigError(
            f"{name} has no predict_proba, so it gives no probabilities; wrap it in "
            f"sklearn.calibration.CalibratedClassifierCV and fit that on rows of its own."
        )
    from sklearn.base import BaseEstimator
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        for step in _steps(estimator):
            if isinstance(step, BaseEstimator):  # nobody knows how others tell that they are
                check_is_fitted(step)
    except NotFittedError as error:
        raise ConfigError(f"{name} is not fitted ({error}) Fit it before it is saved.") from error
    return cast(Estimator, estimator)


def _steps(estimator: object) -> Iterator[object]:
    """The steps of a pipeline, or the estimator; scikit-learn itself looks at the last step."""
    steps = getattr(estimator, "steps", None)
    if not isinstance(steps, list):
        yield estimator
        return
    for _, step in steps:
        if step is not None and not isinstance(step, str):  # left out, or "passthrough"
            yield from _steps(step)


def _classes(estimator: Estimator, named: Sequence[str], name: str) -> tuple[str, ...]:
    own = getattr(estimator, "classes_", None)
    if own is None or np.ndim(own) != 1:
        raise ConfigError(
            f"{name} has no list of classes in classes_; give a classifier with one label a row."
        )
    if named and len(named) != len(own):
        raise ConfigError(
            f"teacher.classes names {len(named)} classes {list(named)} but {name} was fitted on "
            f"{len(own)}: {[str(c) for c in own]}; name each, in that order."
        )
    written = label_column(pa.array(list(own)), "classes_", where=name).to_pylist()
    return tuple(named) or tuple(str(c) for c in written)
