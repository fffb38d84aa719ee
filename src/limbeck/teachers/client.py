"""The client `openai`, with its errors sorted by what they mean for money and for a further try.

The client's own retries are off: a try that the ledger does not know of could be billed twice.
"""

import asyncio
import contextlib
import json
import os
import re
import time
from collections import OrderedDict
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Self

from limbeck.errors import ConfigError
from limbeck.teachers.endpoint_config import EndpointConfig
from limbeck.teachers.remote import Denied, Lost, Refused, Rejected

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from openai import APIConnectionError, APIStatusError, AsyncOpenAI

HIDDEN = "[key]"
_SLASH = r"\\"
_LEAST_SECRET = 8
_NO_KEY = "none"
_SHOWN = 200
_NOT_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol", "ProxyError")
"""Errors, by their class, of a request that never left this machine."""
_NOT_DONE = (409, 425, 429, 500, 503, 529)
"""The server itself said that it did not do it, which is taken to mean that it bills nothing."""
_NOBODY = (401, 402, 403, 404, 405)
_SPENT = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
_REMEMBERED = 1024
_FULL = 16
"""Requests on their way over one pool of connections before another pool is opened."""
_MOST_POOLS = 4


class Secret:
    """A key that shows itself to nobody.

    It is found in a text as it is, and with any of its characters written as JSON, addresses and
    Python write them: `\\u002B`, `\\/`, `%2B`, `\\x2b`, also when such a text is quoted in another.

    A word of fewer than 8 characters, such as servers on one's own machine take for a key, is not
    looked for in texts: it would be found in words that have nothing to do with it.

    Args:
        value: The key, or an empty string where there is none.
    """

    def __init__(self, value: str) -> None:
        self._value = value
        self._pattern = _any_form(value) if len(value) >= _LEAST_SECRET else None

    def __repr__(self) -> str:
        return "Secret()"

    def __reduce__(self) -> str:
        raise TypeError("a key does not leave the process that read it; read it again there")

    def reveal(self) -> str:
        """The key, for the header of a request; nothing else may ask for it."""
        return self._value

    def hide(self, text: str) -> str:
        """A text without the key."""
        return text if self._pattern is None else self._pattern.sub(HIDDEN, text)


def _any_form(value: str) -> "re.Pattern[str]":
    """Matches a text however its characters are escaped, with all backslashes in front of it.

    If an odd one of those stayed, what was JSON would be none.
    """
    first, *rest = map(_forms, value)
    # Not a run that may be empty: a search skips all places where no alternative can begin.
    return re.compile(rf"(?:{first}|{_SLASH}{{1,16}}{first})" + "".join(rest))


def _forms(character: str) -> str:
    """Matches a character as it is, and as JSON, Python and addresses escape it."""
    plain, slashes = re.escape(character), _SLASH + "{1,8}"
    if character == "\\":
        plain = f"(?:(?:{_SLASH}{_SLASH}){{1,4}}|{_SLASH})"
    elif character in "\"'/":
        plain = f"{_SLASH}{{0,8}}{plain}"
    units = character.encode("utf-16-be", "surrogatepass").hex()
    forms = ["".join(slashes + "u" + _hex(units[at : at + 4]) for at in range(0, len(units), 4))]
    if ord(character) < 256:
        forms.append(slashes + "x" + _hex(f"{ord(character):02x}"))
    octets = character.encode("utf-8", "surrogatepass")
    forms.append("".join("%(?:25)*" + _hex(f"{octet:02x}") for octet in octets))
    # What a backslash begins may be an escape, and the longer one is all of it.
    return f"(?:{'|'.join([*forms, plain])})"


def _hex(digits: str) -> str:
    """Matches digits in upper and lower case."""
    return "".join(one if one.isdigit() else f"[{one}{one.upper()}]" for one in digits)


def api_key(variable: str) -> str:
    """The key in an environment variable; an empty string where no variable is named.

    Raises:
        ConfigError: the variable is not set.
    """
    if not variable:
        return ""
    value = os.environ.get(variable, "").strip()
    if not value:
        raise ConfigError(
            f"teacher.endpoint.api_key_env names {variable}, which is not set in the environment; "
            f"set it to the key of the server, or leave api_key_env out for a server without keys."
        )
    return value


class Client:
    """Posts chat completions. It belongs to the event loop in which it is opened.

    A connection that carries a reply twice would answer every later question with the reply to the
    one before. So after the first reply that comes twice, all that is in flight counts as lost and
    each request gets a connection of its own.

    A request looks at every connection of its pool, and asks the system about each idle one, so
    many requests at once share several small pools.

    Args:
        config: Address and time-out.
        secret: The key.
    """

    def __init__(self, config: EndpointConfig, secret: Secret) -> None:
        self._config = config
        self._secret = secret
        self._seen = _Seen()
        self._reuse = True
        """Whether a connection carries more than one request."""
        self._pools: list[_Pool] = []
        """In use."""
        self._left: list[_Pool] = []
        """Not trusted any more."""

    async def __aenter__(self) -> Self:
        self._emptiest()
        return self

    async def __aexit__(
        self,
        kind: "type[BaseException] | None",
        error: BaseException | None,
        traceback: "TracebackType | None",
    ) -> None:
        for pool in (*self._left, *self._pools):
            await pool.client.close()

    def _emptiest(self) -> "_Pool":
        """The pool with the fewest requests on their way; another one where all are full."""
        pool = min(self._pools, key=lambda pool: pool.on_their_way, default=None)
        if pool is None or (pool.on_their_way >= _FULL and len(self._pools) < _MOST_POOLS):
            pool = _Pool(self._open())
            self._pools.append(pool)
        return pool

    def _open(self) -> "AsyncOpenAI":
        from openai import AsyncOpenAI, Omit, Timeout

        seconds = self._config.timeout_seconds
        headers: dict[str, str | Omit] = {
            # Without these the client would send what it finds in the environment.
            "OpenAI-Organization": Omit(),
            "OpenAI-Project": Omit(),
        }
        if not self._reuse:
            headers["Connection"] = "close"
        return AsyncOpenAI(
            api_key=self._secret.reveal() or _NO_KEY,
            base_url=self._config.base_url,
            # Half for the connection: a request that was never sent must be told from a lost one.
            timeout=Timeout(seconds, connect=seconds / 2),
            max_retries=0,
            default_headers=headers,  # type: ignore[arg-type]  # Omit takes a header away
        )

    async def post(self, body: "Mapping[str, object]") -> bytes:
        """Ask for a chat completion.

        Returns:
            The reply, JSON on one line, without the key.

        Raises:
            Refused, Lost, Rejected, Denied: there is no reply.
        """
        content: bytes | Refused | Lost | Rejected | Denied
        pool, pools = self._emptiest(), self._pools
        pool.on_their_way += 1
        try:
            # The client's time-out is one for each part; a server that sends a byte now and then
            # would keep it waiting for ever.
            async with asyncio.timeout(self._config.timeout_seconds):
                content = await self._post(pool.client, body)
        except TimeoutError:
            content = Lost(f"no reply within {self._config.timeout_seconds:g} s")
        finally:
            pool.on_their_way -= 1
        if isinstance(content, Exception):
            raise content  # here, and not where it was made: its context may hold the key
        if pools is self._pools:
            line = self._line(content)
            if pools is self._pools:
                return line
        raise Lost("the server sent a reply twice, so those on their way cannot be told apart")

    async def _post(
        self, client: "AsyncOpenAI", body: "Mapping[str, object]"
    ) -> bytes | Refused | Lost | Rejected | Denied:
        from openai import APIConnectionError, APIStatusError, Omit, OpenAIError

        headers = {} if self._secret.reveal() else {"Authorization": Omit()}
        try:
            # Not `chat.completions.create`: it looks each part of the body up among all that the
            # service knows, which takes a third of a request and changes nothing of plain JSON.
            content: bytes = await client.post(
                "/chat/completions",
                cast_to=bytes,
                body=body,
                # Named, so that no other key that lies in the environment is ever sent.
                options={"headers": headers, "security": {"bearer_auth": True}},
            )
        except APIStatusError as error:
            return self._status(error)
        except APIConnectionError as error:
            return self._unreachable(error)
        except OpenAIError as error:
            return Lost(self._secret.hide(f"{type(error).__name__}: {error}"))
        return content

    def _line(self, content: bytes) -> bytes:
        try:
            text = content.decode()
            told = json.loads(text)
        except (ValueError, RecursionError):  # the latter where brackets nest too deep
            begin = self._shown(content.decode("utf-8", "replace"))
            raise Lost(f"the server sent something that is not JSON: {begin!r}") from None
        if isinstance(told, dict) and self._seen.repeated(told.get("id"), content):
            self._left += self._pools
            self._pools, self._reuse = [], False
        # A line feed in JSON can only stand between values.
        return self._secret.hide(text.replace("\r", " ").replace("\n", " ")).encode()

    def _status(self, error: "APIStatusError") -> Refused | Lost | Rejected | Denied:
        code = error.status_code
        said = f"the server said {code}: {self._shown(_message(error.body))}"
        if code in _NOBODY or error.code in _SPENT or error.type in _SPENT:
            return Denied(said)
        headers = {name.lower(): value for name, value in error.response.headers.items()}
        wait = retry_after(headers, time.time())
        if code in _NOT_DONE:
            return Refused(said, retry_after=wait, busy=code in (429, 503, 529))
        if code == 408 or code >= 500:
            # Mostly a gateway that got no good reply from the model, which may have done the work.
            return Lost(said, retry_after=wait)
        return Rejected(said)

    def _unreachable(self, error: "APIConnectionError") -> Refused | Lost:
        cause = error.__cause__
        kinds = [kind.__name__ for kind in type(cause).__mro__] if cause is not None else []
        told = self._shown(f"{kinds[0] if kinds else type(error).__name__} {cause or ''}".strip())
        if any(kind in _NOT_SENT for kind in kinds):
            return Refused(f"{self._config.base_url} cannot be reached ({told})", busy=False)
        return Lost(f"the connection broke before the reply was whole ({told})")

    def _shown(self, text: str) -> str:
        text = self._secret.hide(" ".join(text.split()))  # before it is cut: half a key is one too
        return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


@dataclass(slots=True, eq=False)
class _Pool:
    """The connections of one client, and how many requests are on their way over them."""

    client: "AsyncOpenAI"
    on_their_way: int = 0


class _Seen:
    """Recognises a reply that comes a second time, to the last byte and under the same name.

    Servers name their replies, but some name several alike: they are found out by two replies that
    share a name and nothing else, and are held to nothing from then on.
    """

    def __init__(self) -> None:
        self._alike = False
        self._replies: OrderedDict[bytes, str] = OrderedDict()
        self._names: set[str] = set()

    def repeated(self, name: object, content: bytes) -> bool:
        """Whether this reply has come before."""
        if self._alike or not isinstance(name, str):
            return False
        if content in self._replies:
            return True
        self._alike = name in self._names
        self._replies[content] = name
        self._names.add(name)
        if len(self._replies) > _REMEMBERED:
            _, oldest = self._replies.popitem(last=False)
            self._names.discard(oldest)  # of one reply: a name that two share ends all of this
        return False


def retry_after(headers: "Mapping[str, str]", now: float) -> float | None:
    """Seconds that a server asks to wait, or None where it does not.

    Args:
        headers: Of its response, names in lower case.
        now: The machine's clock, in seconds since 1970: only used where the server tells a date,
            and does not tell its own time.
    """
    with contextlib.suppress(ValueError, KeyError):
        return max(0.0, float(headers["retry-after-ms"]) / 1000)
    told = headers.get("retry-after")
    if told is None:
        return None
    with contextlib.suppress(ValueError):
        return max(0.0, float(told))
    with contextlib.suppress(ValueError, TypeError):
        until = parsedate_to_datetime(told).timestamp()
        if "date" in headers:
            # Both dates are of the server's clock, so ours may be wrong.
            with contextlib.suppress(ValueError, TypeError):
                now = parsedate_to_datetime(headers["date"]).timestamp()
        return max(0.0, until - now)
    return None


def _message(body: object) -> str:
    """What the server says, out of the body of an error."""
    if isinstance(body, dict):
        inner = body.get("error", body)
        told = inner.get("message") if isinstance(inner, dict) else inner
        return told if isinstance(told, str) else json.dumps(body)
    return str(body or "nothing")
