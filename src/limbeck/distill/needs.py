"""What the arms of a run need of its teacher, refused where the teacher cannot give it.

Most kinds of teacher say at once whether their answers hold embeddings, so that an arm that needs
them is refused before anything is asked. Of the others the first answers tell.
"""

import numpy as np

from limbeck.answers import Answers
from limbeck.data import Splits
from limbeck.distill.config import DistillConfig
from limbeck.distill.recipes import SUBCLASS, every_arm, make_objective
from limbeck.errors import ConfigError
from limbeck.teachers import Teacher
from limbeck.teachers.base import head_of

_HINTS = {
    "table": "add a column embedding of lists, or columns embedding0, embedding1, ...",
    "callable": "let the function give a tuple of probabilities (n, C) and embeddings (n, D)",
    "ensemble": "put a teacher that has them first, since it is the first one's that are kept",
    "module": "end the network in an nn.Linear over a matrix, whose input is the embedding",
}
_ANOTHER = "take a teacher that has them, such as fit, student, module or huggingface"


def check_teacher(config: DistillConfig, splits: Splits, teacher: Teacher | None) -> None:
    """Refuse a teacher that is known to lack what an arm needs.

    Args:
        config: The run's settings.
        splits: For the classes.
        teacher: None for one that has yet to be trained.

    Raises:
        ConfigError: an arm needs embeddings, or subclasses that the teacher has invented; the
            message names the arm.
    """
    if teacher is not None and getattr(teacher, "embeds", None) is False:
        _refuse(config)
    for name in every_arm(config):
        if SUBCLASS in name.split("+"):
            _check_subclasses(config, splits, teacher, name)


def _check_subclasses(
    config: DistillConfig, splits: Splits, teacher: Teacher | None, name: str
) -> None:
    """Refuse a teacher without as many outputs as the arm wants."""
    classes, kind = splits.schema.num_classes, config.teacher.kind
    wanted = make_objective(name, config).width(classes)
    has = 0
    if kind == "fit":
        has = classes * config.teacher.subclasses
    elif kind == "student" and teacher is not None:
        found = head_of(teacher, splits.validation.take(np.zeros(1, np.int64)))
        has = 0 if found is None else len(found[0])
    if has != wanted or has == classes:
        raise ConfigError(
            f"the arm {name!r} fits {wanted // classes} subclasses of each class that its teacher "
            f"was trained with, but the teacher {kind} has {max(1, has // classes)}; set "
            f"teacher.kind = 'fit' with teacher.subclasses = {max(2, wanted // classes)}, or take "
            f"lelp, which splits the classes of any teacher with embeddings."
        )


def check_answers(config: DistillConfig, answers: Answers) -> None:
    """Refuse answers without embeddings where an arm needs them.

    Raises:
        ConfigError: as `check_teacher`.
    """
    if answers.embeddings is None and len(answers):
        _refuse(config)


def _refuse(config: DistillConfig) -> None:
    for name in every_arm(config):
        if make_objective(name, config).needs_embeddings:
            kind = config.teacher.kind
            raise ConfigError(
                f"the arm {name!r} needs the teacher's embeddings, but the teacher {kind} gives "
                f"none; {_HINTS.get(kind, _ANOTHER)}, or leave the arm out."
            )
