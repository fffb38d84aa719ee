"""Rows of a run: read once into the run folder."""

from limbeck.data import Splits, find_source, prepare, sample_rows
from limbeck.distill.config import DistillConfig
from limbeck.distill.decision import check_decision
from limbeck.distill.folder import RunFolder
from limbeck.errors import ConfigError
from limbeck.teachers import candidate_columns


def stage(config: DistillConfig, folder: RunFolder) -> Splits:
    """Read the files into the run folder, once.

    Raises:
        DataError: the files cannot be used; ConfigError: there is no pool, or the settings of the
            decision do not fit the classes.
    """
    splits = prepare(
        config.data,
        folder.data,
        config.seed,
        keep=answer_columns(config),
        restage=not folder.claimed,
    )
    if splits.pool is None or len(splits.pool) == 0:
        raise ConfigError(
            "distillation needs a pool of unlabelled rows and none was given; name a file with "
            "data.pool (or --pool), or leave the label empty in the rows that are the pool."
        )
    check_decision(config.decision, splits.schema.classes)
    for note in splits.notes:
        folder.log("data", note)
    return splits


def answer_columns(config: DistillConfig) -> tuple[str, ...]:
    """Columns of the pool that hold answers, where the teacher reads them off the rows."""
    everyone = (config.teacher, *config.teacher.teachers)
    readers = [
        one
        for one in everyone
        if one.kind in ("table", "simulated") and one.path is None and not one.teachers
    ]
    if not readers:
        return ()
    pool = config.data.pool or config.data.labelled
    names = sample_rows(find_source(pool)).schema.names
    found = [name for one in readers for name in candidate_columns(names, label=one.label)]
    return tuple(dict.fromkeys(found))
