"""The kinds of student by name, and how one is built from rows.

A kind is a settings class, an encoder class and a module class that go together. A package of
yours adds one with an entry point of the group `limbeck.students` that names a `StudentKind`.
"""

import difflib
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import ClassVar, Literal, Protocol, Self

import pyarrow as pa
import torch

from limbeck.data.schema import Schema
from limbeck.errors import ConfigError, LimbeckWarning
from limbeck.numerics.classmap import ClassMap
from limbeck.registry import lookup
from limbeck.students.base import Encoder, Student, StudentModule
from limbeck.students.factory import FactoryConfig, FactoryEncoder, FactoryModule
from limbeck.students.huggingface import (
    HuggingfaceConfig,
    HuggingfaceEncoder,
    HuggingfaceModule,
)
from limbeck.students.image_cnn import ImageCnnConfig, ImageCnnModule
from limbeck.students.image_rows import ImageCnnEncoder
from limbeck.students.kept import Keep
from limbeck.students.tabular import TabularConfig, TabularEncoder, TabularModule
from limbeck.students.text_bag import TextBagConfig, TextBagEncoder, TextBagModule
from limbeck.students.text_transformer import (
    TextTransformerConfig,
    TextTransformerEncoder,
    TextTransformerModule,
)


class Settings(Protocol):
    """What every settings class has beside its fields (it is a frozen dataclass)."""

    recommended_lr: ClassVar[float]
    """Peak learning rate of AdamW that suits the kind."""

    @classmethod
    def large(cls) -> Self:
        """Settings of a model of a teacher's size."""


@dataclass(frozen=True, slots=True)
class StudentKind:
    """What belongs to one kind of student.

    Args:
        name: What run files call it.
        reads: Groups of schema columns that it looks at.
        settings: Its settings class.
        encoder: Its encoder class.
        module: Builds its module from (encoder, settings, width, generator).
        larger: Whether `settings.large()` gives a model of a teacher's size.
    """

    name: str
    reads: tuple[Literal["text", "numeric", "category", "image"], ...]
    settings: type[Settings]
    encoder: type[Encoder]
    module: Callable[..., StudentModule]
    larger: bool = True


STUDENTS: dict[str, StudentKind] = {
    "text_bag": StudentKind("text_bag", ("text",), TextBagConfig, TextBagEncoder, TextBagModule),
    "text_transformer": StudentKind(
        "text_transformer",
        ("text",),
        TextTransformerConfig,
        TextTransformerEncoder,
        TextTransformerModule,
    ),
    "tabular": StudentKind(
        "tabular", ("numeric", "category"), TabularConfig, TabularEncoder, TabularModule
    ),
    "image_cnn": StudentKind(
        "image_cnn", ("image",), ImageCnnConfig, ImageCnnEncoder, ImageCnnModule
    ),
    "factory": StudentKind(
        "factory",
        ("text", "numeric", "category", "image"),
        FactoryConfig,
        FactoryEncoder,
        FactoryModule,
        larger=False,
    ),
    "huggingface": StudentKind(
        "huggingface",
        ("text",),
        HuggingfaceConfig,
        HuggingfaceEncoder,
        HuggingfaceModule,
        larger=False,
    ),
}


def find_kind(name: str) -> StudentKind:
    """Find a kind by name, a user's own too.

    Raises:
        ConfigError: nothing has this name; the nearest one is named.
    """
    return lookup("students", STUDENTS, name)


def default_kind(schema: Schema) -> str:
    """Choose a kind by the columns: `image_cnn` for an image, `text_bag` for text, or `tabular`.

    Raises:
        ConfigError: the schema has no input column.
    """
    if schema.image:
        return "image_cnn"
    if schema.text:
        return "text_bag"
    if schema.inputs:
        return "tabular"
    raise ConfigError(
        "the schema names no input column, so no student can read the rows; name an image, "
        "text, numeric or category column."
    )


def build(
    kind: str,
    settings: object,
    schema: Schema,
    batches: Iterable[pa.RecordBatch],
    width: int,
    generator: torch.Generator,
    *,
    keep: Keep | None = None,
) -> Student:
    """Fit the encoder on unlabelled rows and initialise the module.

    Args:
        kind: A registered name.
        settings: The kind's settings, or a mapping of those that differ from the defaults.
        schema: The task's columns; the student's own schema keeps only those that it reads.
        batches: Rows to learn scales from, read at most once.
        width: Outputs of the head, >= 1.
        generator: Draws all weights: same state, same bytes. On the CPU.
        keep: Where encoders that take long to fit are kept; None fits each anew.

    Raises:
        ConfigError: unknown kind or setting, or no column that this kind reads.
    """
    if width < 1:
        raise ConfigError(f"width={width}: a student's head needs at least one output.")
    found = find_kind(kind)
    chosen = settings_of(kind, settings) if isinstance(settings, Mapping) else settings
    if keep is not None and found.encoder.slow_to_fit and is_dataclass(chosen):
        assert not isinstance(chosen, type)
        encoder = keep.fitted(found.encoder, batches, schema, chosen)
    else:
        encoder = found.encoder.fit(batches, schema, chosen)
    module = found.module(encoder, chosen, width, generator)
    return Student(encoder, module, _narrowed(schema, found))


def with_outputs(student: Student, class_map: ClassMap, generator: torch.Generator) -> Student:
    """The same kind of student with a freshly drawn module whose head has a class map's outputs.

    Args:
        student: Not changed; its encoder is shared.
        class_map: Which class each output belongs to.
        generator: As for `build`; in the same state it draws the same weights below the head.
    """
    kind = find_kind(student.encoder.kind)
    module = kind.module(student.encoder, student.module.settings, class_map.width, generator)
    known = None if class_map.is_plain else class_map
    return Student(student.encoder, module, student.schema, known)


def recommended_lr(settings: Settings) -> float:
    """Peak learning rate of AdamW, in batches of 256 rows, that suits a kind."""
    return settings.recommended_lr


def large_settings(kind: str, schema: Schema) -> Settings:
    """Settings of a model of a teacher's size, of the kind that `large_kind` says."""
    return find_kind(large_kind(kind, schema)).settings.large()


def large_kind(kind: str, schema: Schema) -> str:
    """The kind of a teacher's size: `kind`, or the columns' own where it is empty or has none."""
    return kind if kind and find_kind(kind).larger else default_kind(schema)


def settings_of(kind: str, values: Mapping[str, object]) -> Settings:
    """Make a kind's settings from a run file's table.

    Raises:
        ConfigError: an unknown key, with the nearest known one, or a value of the wrong type.
    """
    settings = find_kind(kind).settings
    if not is_dataclass(settings):
        raise ConfigError(f"the settings of {kind} are not a dataclass; make them one.")
    known = {field.name: field.type for field in fields(settings)}
    checked: dict[str, object] = {}
    for name, given in values.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0)
            raise ConfigError(f"{kind} has no setting {name!r}; did you mean {near[0]!r}?")
        expected = known[name]
        value = float(given) if expected is float and type(given) is int else given
        if isinstance(expected, type) and type(value) is not expected:
            raise ConfigError(
                f"{name}={value!r}: {kind} needs {name} as {expected.__name__}, "
                f"not {type(value).__name__}."
            )
        checked[name] = value
    return settings(**checked)


def _narrowed(schema: Schema, kind: StudentKind) -> Schema:
    """Drop the columns that the kind does not read, with a warning that names them."""
    groups = {
        "text": schema.text,
        "numeric": schema.numeric,
        "category": schema.category,
        "image": schema.image,
    }
    unread = [name for group in groups if group not in kind.reads for name in groups[group]]
    if unread:
        warnings.warn(
            f"the student {kind.name} reads {' and '.join(kind.reads)} columns only; it does not "
            f"see {', '.join(unread)}.",
            LimbeckWarning,
            stacklevel=3,
        )
    return replace(
        schema,
        text=schema.text if "text" in kind.reads else (),
        numeric=schema.numeric if "numeric" in kind.reads else (),
        category=schema.category if "category" in kind.reads else (),
        image=schema.image if "image" in kind.reads else (),
    )
