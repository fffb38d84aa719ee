"""What the replies of a chat model mean: strict, and apart from how they were got.

A reply is one class or it is a failure. Nothing here guesses: a reply with more words than the
class, or with a class that does not exist, is told as such.
"""

import json
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

LEAST_MASS = 0.5
"""Share of the probability that must lie on the options."""
_QUOTES = {'"': '"', "'": "'", "`": "`", "“": "”", "„": "“", "‘": "’", "«": "»"}  # noqa: RUF001
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reply means.

    Args:
        probs: Probability of each class, in the order in which they were listed, or None.
        failure: Why there are none, in one sentence, else an empty string.
    """

    probs: tuple[float, ...] | None
    failure: str = ""


def plain(text: str) -> str:
    """A text without what does not tell classes apart.

    Unicode forms, upper and lower case, white space around and repeated, quotes around, and one
    full stop at the end, within the quotes or behind them.
    """
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    text = text.removesuffix(".").rstrip()
    if len(text) >= 2 and _QUOTES.get(text[0]) == text[-1]:
        text = text[1:-1].strip().removesuffix(".").rstrip()
    return text


def read_votes(lines: Sequence[bytes], names: Sequence[str], votes: int) -> Reading:
    """Share of the votes for each class.

    Args:
        lines: Chat completions as JSON, together at least `votes` choices.
        names: Class names in the order listed.
        votes: How many count; the first ones do.

    Returns:
        Shares over the votes that can be read. A failure where fewer than half can be read.
    """
    choices: list[dict[str, object]] = []
    for line in lines:
        completion = _completion(line)
        if isinstance(completion, str):
            return Reading(None, completion)
        choices += completion
    choices = choices[:votes]
    table = {plain(name): place for place, name in enumerate(names)}
    counts = [0] * len(names)
    unread: list[str] = []
    for choice in choices:
        content = _content(choice)
        place = table.get(plain(content)) if isinstance(content, str) else None
        if place is not None:
            counts[place] += 1
            continue
        cut = choice.get("finish_reason") == "length"
        hint = " (it was cut: raise teacher.endpoint.max_tokens)" if cut else ""
        unread.append(f"the reply {_shown(content)} is not exactly one of the classes{hint}")
    told = sum(counts)
    if len(choices) < votes:
        return Reading(None, f"the server sent {len(choices)} of {votes} votes")
    if 2 * told < votes:
        return Reading(None, unread[0])
    return Reading(tuple(count / told for count in counts))


def read_logprobs(line: bytes, options: Sequence[str]) -> Reading:
    """Probability of each option at the position of the answer.

    That is the first token that is more than white space. An option's probability is the sum over
    the alternatives there that are this letter, in upper or lower case, with or without white space
    around. An option that is not listed gets an equal share of the probability that the server did
    not list, but no more than the least of the alternatives that it did list, since that is the
    most that it can have. Then the options' probabilities are scaled to sum to 1.

    Args:
        line: A chat completion as JSON.
        options: One letter a class, in the order listed.

    Returns:
        A failure where there are no log-probabilities, or less than half of the probability lies on
        options.
    """
    completion = _completion(line)
    if isinstance(completion, str):
        return Reading(None, completion)
    position = _answer_position(completion[0])
    if isinstance(position, str):
        return Reading(None, position)
    alternatives, least = position
    places = {option.casefold(): place for place, option in enumerate(options)}
    probs = [0.0] * len(options)
    listed = math.fsum(alternatives.values())  # exact: the order of the classes changes nothing
    for token, chance in alternatives.items():
        place = places.get(token.strip().casefold())
        if place is not None:
            probs[place] += chance
    mass = math.fsum(probs)
    if mass < LEAST_MASS:
        best = max(alternatives, key=alternatives.__getitem__)
        return Reading(
            None,
            f"only {mass:.0%} of the probability is on the letters of the classes; the likeliest "
            f"token is {_shown(best)}",
        )
    missing = [place for place, chance in enumerate(probs) if chance == 0.0]
    if missing:
        share = min(max(0.0, 1.0 - listed) / len(missing), least)
        for place in missing:
            probs[place] = share
        mass = math.fsum(probs)
    return Reading(tuple(chance / mass for chance in probs))


def count_choices(line: bytes) -> int:
    """Choices in a chat completion; 0 where it is none."""
    completion = _completion(line)
    return 0 if isinstance(completion, str) else len(completion)


def choices_of(body: object) -> list[dict[str, object]] | str:
    """The choices of a chat completion that was read, at least one, or why there are none."""
    if not isinstance(body, dict):
        return f"the reply {_shown(body)} is no chat completion"
    choices = body.get("choices")
    if isinstance(choices, list) and choices and all(isinstance(one, dict) for one in choices):
        return choices
    if body.get("error"):
        return f"the server replied with an error: {_shown(body['error'])}"
    return "the reply has no choices"


def _completion(line: bytes) -> list[dict[str, object]] | str:
    """The choices of a chat completion, at least one, or why there are none."""
    try:
        body = json.loads(line)
    except ValueError:
        return f"the reply {_shown(line.decode('utf-8', 'replace'))} is not JSON"
    return choices_of(body)


def _content(choice: dict[str, object]) -> object:
    message = choice.get("message")
    return message.get("content") if isinstance(message, dict) else None


Position = tuple[dict[str, float], float]
"""Probabilities by token, and the most that a token which is not among them can have."""


def _answer_position(choice: dict[str, object]) -> Position | str:
    """Alternatives where the answer stands, or why there are none."""
    around = choice.get("logprobs")
    tokens = around.get("content") if isinstance(around, dict) else None
    if not isinstance(tokens, list) or not tokens:
        return (
            "the server sent no log-probabilities; set teacher.endpoint.probabilities to votes, or "
            "ask a server that gives them"
        )
    for token in tokens:
        if isinstance(token, dict) and str(token.get("token", "")).strip():
            return _alternatives(token)
    return "the reply is nothing but white space; raise teacher.endpoint.max_tokens"


def _alternatives(token: dict[str, object]) -> Position | str:
    listed = token.get("top_logprobs")
    entries = listed if isinstance(listed, list) else []
    found: dict[str, float] = {}
    # The token itself may be an unlikely one that is not among the likeliest.
    for entry in (*entries, token):
        text = entry.get("token") if isinstance(entry, dict) else None
        log = entry.get("logprob") if isinstance(entry, dict) else None
        if not isinstance(text, str) or not isinstance(log, int | float) or math.isnan(log):
            return f"the alternative {_shown(entry)} has no token or no log-probability"
        found.setdefault(text, math.exp(min(float(log), 0.0)))
    return found, min((found[entry["token"]] for entry in entries), default=1.0)


def _shown(value: object) -> str:
    """The beginning of something, as one line."""
    text = " ".join((value if isinstance(value, str) else json.dumps(value)).split())
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
