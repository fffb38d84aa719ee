"""Settings of the teacher `endpoint`: the table `[teacher.endpoint]` of a run file."""

import json
import re
from dataclasses import dataclass, field, replace
from typing import Literal
from urllib.parse import urlsplit

from limbeck.errors import ConfigError
from limbeck.teachers.pricing import MOST_PRICE

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_OWN = ("model", "messages", "n", "logprobs", "top_logprobs", "temperature", "stream")
_MOST_LOGPROBS = 20
_MOST_TOKENS = 10_000_000
MOST_VOTES = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointConfig:
    """A model behind an OpenAI-compatible HTTP server: how it is asked, and what that costs."""

    base_url: str = ""
    """Address up to the version, such as http://localhost:8000/v1 or https://api.openai.com/v1."""
    model: str = ""
    """Name of the model, as the server knows it."""
    api_key_env: str = ""
    """Name of the environment variable that holds the key; never the key itself. Default: no key is
    sent, not even one that lies in OPENAI_API_KEY."""
    probabilities: Literal["logprobs", "votes"] = "logprobs"
    """logprobs: from the log-probabilities of one reply, where the server gives them. votes: the
    share of several replies. The one never becomes the other by itself."""
    votes: int = 5
    """votes: replies to a question, 1 to 128. With 1, each answer is one class for certain."""
    votes_a_request: int = 0
    """votes: replies asked for in one request, as n. Default 0: all. What the server leaves out is
    asked for again; 1 for servers that refuse n."""
    temperature: float = 1.0
    """At which the server draws its reply. Probabilities are wanted at 1."""
    top_logprobs: int = 20
    """logprobs: alternatives that the server lists, 1 to 20; some servers allow 5 only."""
    max_tokens: int = 0
    """Most tokens of a reply. Default 0: 1 with logprobs; with votes as many as the longest class
    name has bytes, and 4 more."""
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the server calls it; newer models of OpenAI want max_completion_tokens."""
    extra_body: str = ""
    """Further parameters of a request, as a JSON object, such as {"reasoning_effort": "none"}."""
    system: str = ""
    """Template of the system message; {classes} stands for the list of classes. Default: a plain
    instruction."""
    user: str = ""
    """Template of the user message; {name} stands for the column name. Default: the text alone, or
    a line for each column."""
    class_names: dict[str, str] = field(default_factory=dict)
    """How the prompt calls classes whose names say little, such as 0 = "negative"."""
    shuffle_classes: bool = False
    """List the classes in another order in each question, drawn from the seed and the question, so
    that a liking for the first one evens out."""
    seed: int = 0
    """Seeds the orders of the classes and the waits between tries."""
    price_in: int = 0
    """Millionths of the currency for a million tokens of the prompt: 150000 is 0.15 a million."""
    price_out: int = 0
    """Millionths of the currency for a million tokens of the reply."""
    prompt_overhead: int = 64
    """Most tokens that the server puts around the messages of a request."""
    concurrency: int = 16
    """Questions in flight at most."""
    requests_per_minute: int = 0
    """0 for no limit."""
    tokens_per_minute: int = 0
    """Tokens of prompts and replies; 0 for no limit."""
    timeout_seconds: float = 60.0
    """How long one request may take."""
    retries: int = 6
    """Further tries of a question that got no reply."""
    smoke_gate: bool = True
    """Stop the run when the first answers cannot be read, or are no better than guessing."""

    def __post_init__(self) -> None:
        self._check_server()
        self._check_body()
        for name in ("requests_per_minute", "tokens_per_minute", "retries", "seed"):
            _at_least(name, getattr(self, name), 0)
        for name in ("price_in", "price_out"):
            _within(name, getattr(self, name), MOST_PRICE)
        for name in ("prompt_overhead", "max_tokens"):
            _within(name, getattr(self, name), _MOST_TOKENS)
        _at_least("concurrency", self.concurrency, 1)
        if not 0 < self.timeout_seconds < float("inf"):
            raise ConfigError(
                f"teacher.endpoint.timeout_seconds={self.timeout_seconds}: must be > 0 and finite."
            )

    def _check_server(self) -> None:
        # Neither message shows the value: it may be a key.
        if self.api_key_env and not _VARIABLE.fullmatch(self.api_key_env):
            raise ConfigError(
                "teacher.endpoint.api_key_env does not look like the name of an environment "
                "variable (capital letters, digits and _); give a name such as OPENAI_API_KEY, and "
                "put the key into that variable, never into a file."
            )
        if not self.base_url:
            return
        try:
            parts = urlsplit(self.base_url)
        except ValueError as error:
            raise ConfigError(f"teacher.endpoint.base_url cannot be read: {error}.") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                "teacher.endpoint.base_url must begin with http:// or https:// and a host, such as "
                "http://localhost:8000/v1."
            )
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ConfigError(
                f"teacher.endpoint.base_url of {parts.hostname} holds a user, a query or a "
                f"fragment, where secrets hide; put the key into an environment variable and name "
                f"it as teacher.endpoint.api_key_env."
            )

    def _check_body(self) -> None:
        if not 1 <= self.votes <= MOST_VOTES or not 0 <= self.votes_a_request <= MOST_VOTES:
            raise ConfigError(
                f"teacher.endpoint.votes={self.votes} and votes_a_request={self.votes_a_request}: "
                f"votes must be in [1, {MOST_VOTES}], and votes_a_request too, or 0 for all."
            )
        if not 1 <= self.top_logprobs <= _MOST_LOGPROBS:
            raise ConfigError(
                f"teacher.endpoint.top_logprobs={self.top_logprobs}: must be in "
                f"[1, {_MOST_LOGPROBS}]."
            )
        if not 0 <= self.temperature <= 2:
            raise ConfigError(
                f"teacher.endpoint.temperature={self.temperature}: must be in [0, 2]; 1 is the "
                f"model's own distribution."
            )
        self.extra()

    def extra(self) -> dict[str, object]:
        """Further parameters of a request.

        Raises:
            ConfigError: `extra_body` is no JSON object, or sets what other settings set.
        """
        if not self.extra_body:
            return {}
        try:
            body = json.loads(self.extra_body)
        except ValueError as error:
            raise ConfigError(f"teacher.endpoint.extra_body is not JSON: {error}.") from error
        if not isinstance(body, dict):
            raise ConfigError("teacher.endpoint.extra_body must be a JSON object, in braces.")
        if taken := [name for name in (*_OWN, self.max_tokens_name) if name in body]:
            raise ConfigError(
                f"teacher.endpoint.extra_body sets {', '.join(taken)}, which other settings set or "
                f"which cannot be changed; leave it out."
            )
        return body

    def answers_only(self) -> "EndpointConfig":
        """The settings that shape answers; the others at their defaults.

        How fast the server is asked, where it stands and what it costs may change in the middle of
        a run.
        """
        default = EndpointConfig()
        return replace(self, **{name: getattr(default, name) for name in FREE})


FREE = (
    *("base_url", "api_key_env", "price_in", "price_out", "prompt_overhead", "concurrency"),
    *("requests_per_minute", "tokens_per_minute", "timeout_seconds", "retries", "smoke_gate"),
)
"""Settings that shape no answer."""


def _within(name: str, value: int, most: int) -> None:
    if not 0 <= value <= most:
        raise ConfigError(f"teacher.endpoint.{name}={value}: must be in [0, {most:,}].")


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"teacher.endpoint.{name}={value}: must be >= {least}.")
