"""The prompt of an endpoint that its settings describe, and whether it fits the task."""

from collections.abc import Sequence

from limbeck.data.schema import Schema
from limbeck.errors import ConfigError
from limbeck.teachers.endpoint_config import EndpointConfig
from limbeck.teachers.prompt import (
    CLASSES,
    LETTERS,
    SYSTEM_LETTERS,
    SYSTEM_NAMES,
    Prompt,
    default_user,
    fields_of,
)
from limbeck.teachers.reading import plain

_LINE = b"\n"
_SPARE_TOKENS = 4


def check_settings(config: EndpointConfig, schema: Schema) -> None:
    """Refuse settings that no prompt could be made of.

    Raises:
        ConfigError: an address or a model is missing, or there are too many classes for letters.
    """
    for name in ("base_url", "model"):
        if not getattr(config, name):
            raise ConfigError(
                f"teacher.kind='endpoint' needs teacher.endpoint.{name}; give it, beside base_url "
                f"and model, in the table [teacher.endpoint]."
            )
    if config.probabilities == "logprobs" and schema.num_classes > len(LETTERS):
        raise ConfigError(
            f"the task has {schema.num_classes} classes but log-probabilities are read from one "
            f"letter a class, {len(LETTERS)} at most; set teacher.endpoint.probabilities to votes."
        )


def prompt_of(
    config: EndpointConfig, schema: Schema, columns: Sequence[str]
) -> tuple[Prompt, tuple[str, ...]]:
    """Templates that fit the task, and the columns that they show.

    Raises:
        ConfigError: a template shows no column or no classes, or class names are confused.
    """
    if CLASSES in schema.inputs:
        raise ConfigError(
            f"the column {CLASSES!r} has the name that templates use for the list of the classes; "
            f"rename it."
        )
    letters = config.probabilities == "logprobs"
    readable = [name for name in schema.inputs if name not in schema.image]
    system = config.system or (SYSTEM_LETTERS if letters else SYSTEM_NAMES)
    user = config.user or default_user(tuple(columns) or tuple(readable))
    what = "teacher.endpoint."
    shown = fields_of(system, readable, what=what + "system")
    shown += fields_of(user, readable, what=what + "user")
    if not shown:
        raise ConfigError(
            f"no template shows a column of the row, so all questions would be the same; put one "
            f"of {readable} in braces into teacher.endpoint.user."
        )
    if "{classes}" not in system + user:
        raise ConfigError(
            "neither template lists the classes; put {classes} into teacher.endpoint.system."
        )
    if unknown := sorted(set(config.class_names) - set(schema.classes)):
        raise ConfigError(
            f"teacher.endpoint.class_names names {unknown}, which are no classes of the task, "
            f"{list(schema.classes)}; correct them."
        )
    names = tuple(config.class_names.get(name, name) for name in schema.classes)
    if "" in map(plain, names) or len({plain(name) for name in names}) < len(names):
        raise ConfigError(
            f"the class names {list(names)} cannot be told apart without case, quotes and full "
            f"stops; give others as teacher.endpoint.class_names."
        )
    inputs = tuple(name for name in schema.inputs if name in shown)
    return Prompt(system, user, names, letters, config.shuffle_classes, config.seed), inputs
