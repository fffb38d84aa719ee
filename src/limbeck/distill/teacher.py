"""The teacher of a run, and where its copies are asked."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from limbeck.data import Splits
from limbeck.distill.config import DistillConfig
from limbeck.distill.folder import RunFolder
from limbeck.errors import ConfigError
from limbeck.teachers import Teacher
from limbeck.teachers import build as build_teacher
from limbeck.teachers.config import TeacherConfig


def load_teacher(config: DistillConfig, splits: Splits, folder: RunFolder) -> Teacher:
    """The configured teacher; `fit` must have been trained."""
    return _recipe(config, splits, folder)()


@contextmanager
def asked_by(
    config: DistillConfig, splits: Splits, folder: RunFolder, teacher: Teacher
) -> Iterator[Teacher]:
    """The teacher as the configured engine asks it; what that has started ends with the block.

    Raises:
        MissingExtraError: `engine = "ray"` and Ray is not installed.
        ConfigError: this engine cannot ask this teacher.
    """
    if config.engine == "local":
        yield teacher
        return
    if config.teacher.kind == "ensemble":
        raise ConfigError(
            'engine = "ray" asks one teacher at a time and cannot ask an ensemble; buy the answers '
            "of each of its teachers alone (limbeck label, same ledger), then run the ensemble "
            'with engine = "local", where they are free.'
        )
    from limbeck.engines.ray import RayTeacher

    recipe = _recipe(config, splits, folder)
    with RayTeacher(teacher, recipe, config.ray, code=config.code) as copies:
        yield copies


def check_engine(
    config: DistillConfig, splits: Splits, folder: RunFolder, teacher: Teacher | None
) -> None:
    """Refuse before anything is spent what `asked_by` would refuse.

    Raises:
        MissingExtraError, ConfigError: as `asked_by`.
    """
    if teacher is not None:
        with asked_by(config, splits, folder, teacher):
            return
    if config.engine == "ray":
        from limbeck.engines.cluster import require_ray

        require_ray()


def _recipe(config: DistillConfig, splits: Splits, folder: RunFolder) -> partial[Teacher]:
    """Makes the teacher from settings and files alone, here or in another process."""
    assert splits.pool is not None
    names = tuple(splits.pool.table.schema.names)
    settings = _settings(config, folder)
    return partial(build_teacher, settings, splits.schema, config.code, names=names)


def _settings(config: DistillConfig, folder: RunFolder) -> TeacherConfig:
    if config.teacher.kind != "fit":
        return config.teacher
    return replace(config.teacher, kind="student", path=folder.teacher, members=1, subclasses=1)
