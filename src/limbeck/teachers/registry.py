"""How a run file's teacher is made."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from limbeck.data.schema import Schema
from limbeck.errors import ConfigError, DataError
from limbeck.registry import lookup
from limbeck.teachers.base import Teacher
from limbeck.teachers.config import TeacherConfig
from limbeck.teachers.local import fingerprint_of
from limbeck.teachers.remote import RemoteTeacher
from limbeck.teachers.wrappers import align_classes, with_price

Builder = Callable[[TeacherConfig, Schema, Path, Sequence[str]], Teacher]
"""Makes a teacher of settings, task, folder of the run file, and names of the rows' columns."""


def build(
    config: TeacherConfig, schema: Schema, folder: Path, *, names: Sequence[str] = ()
) -> Teacher:
    """Make the teacher that settings describe, its classes in the order of the task.

    Args:
        config: The settings; their paths are taken as they are.
        schema: The task.
        folder: Where modules named in the settings are looked for first: the run file's folder.
        names: All columns that the rows have, for answers that are columns of the rows.

    Raises:
        ConfigError: the kind is unknown, a setting that it needs is missing, its classes are not
            the task's.
        DataError, StudentError: its file or folder cannot be used.
    """
    teacher = lookup("teachers", TEACHERS, config.kind)(config, schema, folder, names)
    if not isinstance(teacher, RemoteTeacher):  # such a one knows its own price
        people = config.people if config.kind == "human" else 1
        price = config.price_per_answer * people
        teacher = with_price(teacher, price, currency=config.currency)
    return align_classes(teacher, schema.classes)


def _table(config: TeacherConfig, schema: Schema, folder: Path, names: Sequence[str]) -> Teacher:
    from limbeck.teachers.table import ColumnsTeacher, TableTeacher

    if config.path is None:
        return ColumnsTeacher(schema, names, label=config.label)
    columns = _seen(config, schema)
    return TableTeacher(config.path, schema, columns=columns, label=config.label)


def _module(config: TeacherConfig, schema: Schema, folder: Path, _: Sequence[str]) -> Teacher:
    from limbeck.teachers.module import ModuleTeacher

    if not config.factory or config.weights is None:
        raise ConfigError(
            "teacher.kind='module' needs teacher.factory (package.module:function) and "
            "teacher.weights (a .safetensors file); give both."
        )
    factory = _factory(config, folder)
    classes = config.classes or schema.classes
    return ModuleTeacher(factory, config.weights, classes, _seen(config, schema))


def _sklearn(config: TeacherConfig, schema: Schema, folder: Path, _: Sequence[str]) -> Teacher:
    from limbeck.storage import sha256
    from limbeck.teachers.imports import full_name, plain_source
    from limbeck.teachers.sklearn import SklearnTeacher, load_estimator, made_by

    if (config.path is None) == (not config.factory):
        raise ConfigError(
            "teacher.kind='sklearn' needs teacher.path (a skops file) or teacher.factory "
            "(package.module:function, which gives a fitted estimator); give one of the two."
        )
    if config.path is not None:
        estimator = load_estimator(config.path, config.trusted)
        version = [sha256(config.path), config.fingerprint]
    else:
        factory = _factory(config, folder)
        source = config.fingerprint or plain_source(factory)
        if source is None:
            raise ConfigError(
                f"teacher.factory={config.factory!r} cannot be told from others by name and source "
                f"file; set teacher.fingerprint, a text that you change with its answers."
            )
        estimator, version = made_by(factory, config.factory), [full_name(factory), source]
    return SklearnTeacher(
        estimator,
        schema,
        fingerprint=fingerprint_of(*version),
        classes=config.classes,
        columns=_seen(config, schema) if config.columns else (),
    )


def _factory(config: TeacherConfig, folder: Path) -> Callable[[], object]:
    from limbeck.teachers.imports import import_object

    factory = import_object(config.factory, folder, what="teacher.factory")
    if not callable(factory):
        raise ConfigError(f"teacher.factory={config.factory!r} is no function; name one.")
    return factory


def _student(config: TeacherConfig, schema: Schema, folder: Path, _: Sequence[str]) -> Teacher:
    from limbeck.teachers.ensemble import EnsembleTeacher, member_folders
    from limbeck.teachers.student import StudentTeacher

    if config.path is None:
        raise ConfigError("teacher.kind='student' needs teacher.path, a student's folder; give it.")
    members = member_folders(config.path)
    return EnsembleTeacher(members) if members else StudentTeacher(config.path)


def _callable(config: TeacherConfig, schema: Schema, folder: Path, _: Sequence[str]) -> Teacher:
    from limbeck.teachers.callable import AnswerFunction, CallableTeacher
    from limbeck.teachers.imports import import_object

    if not config.function:
        raise ConfigError(
            "teacher.kind='callable' needs teacher.function, as package.module:function; give it."
        )
    function = import_object(config.function, folder, what="teacher.function")
    if not callable(function):
        raise ConfigError(f"teacher.function={config.function!r} is no function; name one.")
    return CallableTeacher(
        cast(AnswerFunction, function),
        config.classes or schema.classes,
        _seen(config, schema),
        fingerprint=config.fingerprint or None,
    )


def _human(config: TeacherConfig, schema: Schema, folder: Path, _: Sequence[str]) -> Teacher:
    from limbeck.teachers.human import HumanTeacher

    return HumanTeacher(
        schema.classes,
        _seen(config, schema),
        question=config.question,
        fingerprint=config.fingerprint,
    )


def _huggingface(config: TeacherConfig, schema: Schema, folder: Path, _: Sequence[str]) -> Teacher:
    from limbeck.teachers.huggingface import HuggingfaceTeacher

    if config.path is None:
        raise ConfigError(
            "teacher.kind='huggingface' needs teacher.path, the folder of a model; give it."
        )
    return HuggingfaceTeacher(
        config.path,
        schema,
        columns=_seen(config, schema),
        classes=config.classes,
        max_tokens=config.max_tokens,
        pickled_weights=config.pickled_weights,
    )


def _ensemble(config: TeacherConfig, schema: Schema, folder: Path, names: Sequence[str]) -> Teacher:
    from limbeck.teachers.mean import MeanTeacher

    return MeanTeacher([build(one, schema, folder, names=names) for one in config.teachers])


def _simulated(
    config: TeacherConfig, schema: Schema, folder: Path, names: Sequence[str]
) -> Teacher:
    from limbeck.teachers.simulated import SimulatedTeacher

    if config.teachers:
        truth = build(config.teachers[0], schema, folder, names=names)
    else:
        try:
            truth = _table(config, schema, folder, names)
        except DataError as error:
            if config.path is not None or config.label:
                raise
            raise ConfigError(
                "teacher.kind='simulated' needs the truth: name a column of the rows as "
                "teacher.label, a file as teacher.path, or a teacher as [[teacher.teachers]]."
            ) from error
    return SimulatedTeacher(
        truth,
        error_rate=config.error_rate,
        error_falls=config.error_falls,
        adversarial=config.adversarial,
        failure_rate=config.failure_rate,
        latency_seconds=config.latency_seconds,
        seed=config.noise_seed,
    )


def _endpoint(config: TeacherConfig, schema: Schema, folder: Path, _: Sequence[str]) -> Teacher:
    from limbeck.teachers.endpoint import EndpointTeacher

    if config.endpoint is None:
        raise ConfigError(
            "teacher.kind='endpoint' needs the table [teacher.endpoint] with base_url and model; "
            "give it."
        )
    return EndpointTeacher(
        config.endpoint,
        schema,
        columns=_seen(config, schema) if config.columns else (),
        version=config.fingerprint,
        price_per_answer=config.price_per_answer,
        currency=config.currency,
    )


def _seen(config: TeacherConfig, schema: Schema) -> tuple[str, ...]:
    """Columns that the teacher sees: all inputs, or those named, which must be inputs."""
    for name in config.columns:
        if name not in schema.inputs:
            raise ConfigError(
                f"teacher.columns names {name!r}, which is no input; inputs are "
                f"{list(schema.inputs)}."
            )
    return config.columns or schema.inputs


def _fit(config: TeacherConfig, schema: Schema, folder: Path, _: Sequence[str]) -> Teacher:
    raise ConfigError(
        "teacher.kind='fit' is trained inside a run of `limbeck distill`; to use one that is "
        "trained, give teacher.kind='student' and its folder as teacher.path."
    )


TEACHERS: dict[str, Builder] = {
    "fit": _fit,
    "table": _table,
    "module": _module,
    "sklearn": _sklearn,
    "student": _student,
    "callable": _callable,
    "huggingface": _huggingface,
    "human": _human,
    "endpoint": _endpoint,
    "ensemble": _ensemble,
    "simulated": _simulated,
}
