"""How a row becomes the messages of a chat: templates, class names, options.

With log-probabilities every class has a letter of its own, `A`, `B`, ..., because a letter is one
token for every common tokenizer, while class names may begin with the same token. With votes the
model writes the name of a class.
"""

import difflib
import hashlib
import math
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from limbeck.errors import ConfigError

LETTERS = string.ascii_uppercase
CLASSES = "classes"
"""The field of a template that lists the classes."""

_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
"""A brace of the text (written twice), a field, or a brace that stands alone."""

Message = dict[str, str]

SYSTEM_LETTERS = (
    "You classify what the user sends. It belongs to exactly one of these classes:\n{classes}\n"
    "Reply with the letter of the class, and with nothing else."
)
SYSTEM_NAMES = (
    "You classify what the user sends. It belongs to exactly one of these classes:\n{classes}\n"
    "Reply with the name of the class as it is written here, and with nothing else."
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """Writes the messages of a question.

    Args:
        system, user: Templates; `{classes}` stands for the list of classes, `{column}` for a
            column of the row, `{{` and `}}` for braces.
        names: How the prompt calls the classes, in the order of the task.
        letters: Whether each class has a letter, and the reply is one.
        shuffle: Whether each question lists the classes in an order of its own.
        seed: Another one, other orders.
    """

    system: str
    user: str
    names: tuple[str, ...]
    letters: bool
    shuffle: bool = False
    seed: int = 0

    def order(self, question: bytes) -> tuple[int, ...]:
        """Classes in the order in which a question lists them: a function of seed and id alone."""
        count = len(self.names)
        if not self.shuffle:
            return tuple(range(count))
        key = str(self.seed).encode()

        def draw(place: int) -> bytes:
            data = question + place.to_bytes(4, "little")
            return hashlib.blake2b(data, key=key, digest_size=8).digest()

        return tuple(sorted(range(count), key=draw))

    def messages(self, question: bytes, row: Mapping[str, object]) -> list[Message]:
        """The chat that puts a question."""
        listed = [self.names[place] for place in self.order(question)]
        if self.letters:
            lines = [f"{letter}. {name}" for letter, name in zip(LETTERS, listed, strict=False)]
        else:
            lines = [f"- {name}" for name in listed]
        values = {name: as_text(value) for name, value in row.items()}
        values[CLASSES] = "\n".join(lines)
        chat = [("system", fill(self.system, values)), ("user", fill(self.user, values))]
        return [{"role": role, "content": text} for role, text in chat if text]


def as_text(value: object) -> str:
    """A cell as the prompt shows it; a missing one is empty."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def fill(template: str, values: Mapping[str, str]) -> str:
    """Put values into a template, once: braces in a value stay as they are."""

    def put(found: re.Match[str]) -> str:
        return values[found[1]] if found[1] is not None else found[0][0]

    return _FIELD.sub(put, template)


def fields_of(template: str, inputs: Sequence[str], *, what: str) -> tuple[str, ...]:
    """Columns that a template shows, in order, each once.

    Args:
        template: The text.
        inputs: Columns that there are.
        what: The setting, for messages.

    Raises:
        ConfigError: a field is no column, or the braces do not match.
    """
    found: dict[str, None] = {}
    for match in _FIELD.finditer(template):
        name = match[1]
        if name is None and len(match[0]) == 1:
            raise ConfigError(
                f"{what}: a brace at character {match.start()} stands alone; write {{{{ or }}}} "
                f"for a brace that is part of the text."
            )
        if name is not None and name not in (*inputs, CLASSES):
            known = [CLASSES, *inputs]
            near = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
            raise ConfigError(
                f"{what}: {{{name}}} is no column, expected one of {known}; did you mean "
                f"{{{near}}}? Write {{{{ and }}}} for braces that are part of the text."
            )
        if name not in (None, CLASSES):
            found[name] = None
    return tuple(found)


def default_user(columns: Sequence[str]) -> str:
    """The text alone where there is one column, else a line for each."""
    if len(columns) == 1:
        return "{" + columns[0] + "}"
    return "\n".join(f"{_escaped(name)}: {{{name}}}" for name in columns)


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
