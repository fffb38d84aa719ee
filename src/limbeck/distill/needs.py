"""What the arms of a run need of its teacher, refused where the teacher cannot give it.

Most kinds of teacher say at once whether their answers hold embeddings, so that an arm that needs
them is refused before anything is asked. Of the others the first answers tell.
"""

from limbeck.answers import Answers
from limbeck.distill.config import DistillConfig
from limbeck.distill.recipes import every_arm, make_objective
from limbeck.errors import ConfigError
from limbeck.teachers import Teacher

_HINTS = {
    "table": "add a column embedding of lists, or columns embedding0, embedding1, ...",
    "callable": "let the function give a tuple of probabilities (n, C) and embeddings (n, D)",
    "ensemble": "put a teacher that has them first, since it is the first one's that are kept",
    "module": "end the network in an nn.Linear over a matrix, whose input is the embedding",
}
_ANOTHER = "take a teacher that has them, such as fit, student, module or huggingface"


def check_teacher(config: DistillConfig, teacher: Teacher | None) -> None:
    """Refuse a teacher that says of itself that it gives no embeddings, where an arm needs them.

    Args:
        config: The run's settings.
        teacher: None for one that has yet to be trained, which has embeddings.

    Raises:
        ConfigError: an arm needs them; the message names it.
    """
    if teacher is not None and getattr(teacher, "embeds", None) is False:
        _refuse(config)


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
