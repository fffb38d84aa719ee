"""A model behind an OpenAI-compatible HTTP server as a teacher, through the client `openai`.

The key comes from an environment variable and is nowhere else: it is taken out of every reply and
every message before anyone sees them, and the fingerprint knows nothing of it.
"""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from limbeck.answers import Answers
from limbeck.data.schema import Schema
from limbeck.errors import TeacherError, missing_extra
from limbeck.teachers.base import Money, Replies
from limbeck.teachers.client import Client, Secret, api_key
from limbeck.teachers.endpoint_config import EndpointConfig
from limbeck.teachers.endpoint_prompt import check_settings, prompt_of
from limbeck.teachers.local import fingerprint_of
from limbeck.teachers.pricing import Price, most_prompt_tokens
from limbeck.teachers.prompt import (
    LETTERS,
)
from limbeck.teachers.reading import Reading, choices_of, count_choices, read_logprobs, read_votes
from limbeck.teachers.remote import Denied, Limits, Lost, Refused, Rejected, Reply

_LINE = b"\n"
_SPARE_TOKENS = 4
_MOST_USED = 10**9
"""A server that claims more tokens for one reply does not count."""


class EndpointTeacher:
    """A chat model that is asked over HTTP.

    Args:
        config: How it is asked.
        schema: The task. Columns of images cannot be shown to it.
        columns: Columns that the default user message shows. Default: all inputs.
        version: A text that you change when the model behind the name does.
        price_per_answer: Millionths of the currency an answer, beside what tokens cost.
        currency: ISO 4217 code of all prices.

    Raises:
        ConfigError: a setting is missing or does not fit the task, or the environment variable of
            the key is not set.
        MissingExtraError: the package `openai` is not installed.

    Cost: a request a question with log-probabilities or votes that the server sends together.
    """

    embeds = False

    def __init__(
        self,
        config: EndpointConfig,
        schema: Schema,
        *,
        columns: Sequence[str] = (),
        version: str = "",
        price_per_answer: int = 0,
        currency: str = "USD",
    ) -> None:
        try:
            import openai  # noqa: F401  # only to see that it is there
        except ImportError as error:
            raise missing_extra("openai", "llm") from error
        check_settings(config, schema)
        self._config = config
        self._price = Price(config.price_in, config.price_out, price_per_answer, currency)
        self.classes = schema.classes
        self._letters = config.probabilities == "logprobs"
        self._prompt, self.columns = prompt_of(config, schema, columns)
        self._secret = Secret(api_key(config.api_key_env))
        self._max_tokens = config.max_tokens or (
            1
            if self._letters
            else _SPARE_TOKENS + max(len(name.encode()) for name in self._prompt.names)
        )
        self.fingerprint = self._fingerprint(version)

    def _fingerprint(self, version: str) -> str:
        prompt = self._prompt
        parts = {
            "model": self._config.model,
            "system": prompt.system,
            "user": prompt.user,
            "names": prompt.names,
            "body": self._body(),
            "votes": None if self._letters else self._config.votes,
            "shuffled by": prompt.seed if prompt.shuffle else None,
        }
        text = json.dumps(parts, sort_keys=True)
        return fingerprint_of("endpoint", text, version, *self.classes, "|", *self.columns)

    @property
    def max_in_flight(self) -> int:
        """One batch: the questions of a batch are asked at the same time."""
        return 1

    @property
    def keep_raw(self) -> bool:
        """The reply as it came holds more than its probabilities."""
        return True

    @property
    def limits(self) -> Limits:
        """How the server may be asked."""
        config = self._config
        return Limits(
            concurrency=config.concurrency,
            requests_per_minute=config.requests_per_minute,
            tokens_per_minute=config.tokens_per_minute,
            retries=config.retries,
            timeout_seconds=config.timeout_seconds,
            seed=config.seed,
        )

    @property
    def smoke_gate(self) -> bool:
        """Whether the first answers are looked at before more are bought."""
        return self._config.smoke_gate

    def quote(self, rows: pa.RecordBatch) -> Money:
        """The most that asking about these rows can cost."""
        return Money(int(self.quote_each(rows).sum()), self._price.currency)

    def quote_each(self, rows: pa.RecordBatch) -> NDArray[np.int64]:
        """The most that each row can cost, in millionths of the currency, int64, shape (n,).

        As many tokens as the prompt has bytes, and a reply of full length, once for each vote.
        """
        most = self._prompt_tokens(rows)
        votes = self._votes
        price = self._price
        worst = [votes * price.of(tokens, self._max_tokens) + price.answer for tokens in most]
        return np.array(worst, np.int64)

    def tokens_each(self, rows: pa.RecordBatch) -> NDArray[np.int64]:
        """The most tokens that a request about each row can use, int64, shape (n,)."""
        most = [tokens + self._in_one * self._max_tokens for tokens in self._prompt_tokens(rows)]
        return np.array(most, np.int64)

    def _prompt_tokens(self, rows: pa.RecordBatch) -> list[int]:
        overhead = self._config.prompt_overhead
        # All orders of the classes have the same length, so the question need not be known.
        return [
            most_prompt_tokens(self._prompt.messages(b"", row), overhead)
            for row in rows.select(list(self.columns)).to_pylist()
        ]

    @property
    def _votes(self) -> int:
        return 1 if self._letters else self._config.votes

    @property
    def _in_one(self) -> int:
        """Choices that one request asks for."""
        return min(self._config.votes_a_request or self._votes, self._votes)

    def _body(self) -> dict[str, object]:
        """What every request says beside its messages."""
        config = self._config
        body: dict[str, object] = {
            "model": config.model,
            "temperature": config.temperature,
            config.max_tokens_name: self._max_tokens,
        }
        if self._letters:
            body |= {"logprobs": True, "top_logprobs": config.top_logprobs}
        return body | config.extra()

    @asynccontextmanager
    async def connect(self) -> AsyncIterator["_Connection"]:
        """Open a way to the server in the running event loop."""
        async with Client(self._config, self._secret) as client:
            yield _Connection(self, client)

    def next_request(
        self, question: bytes, row: Mapping[str, object], before: Sequence[bytes]
    ) -> dict[str, object]:
        """The next request of a question, as the body of its POST."""
        body = self._body() | {"messages": self._prompt.messages(question, row)}
        wanted = self._wanted(before)
        return body if wanted <= 1 else body | {"n": wanted}

    def most(self, row: Mapping[str, object], before: Sequence[bytes]) -> int:
        """The most that the next request of a question can cost, in millionths of the currency."""
        messages = self._prompt.messages(b"", row)
        prompt = most_prompt_tokens(messages, self._config.prompt_overhead)
        reply = self._wanted(before) * self._max_tokens
        return self._price.of(prompt, reply) + (0 if before else self._price.answer)

    def _wanted(self, before: Sequence[bytes]) -> int:
        """Choices that the next request asks for, at least one."""
        return max(1, min(self._votes - sum(map(count_choices, before)), self._in_one))

    def settle(
        self, line: bytes, row: Mapping[str, object], before: Sequence[bytes]
    ) -> tuple[int, int, str | None, bool]:
        """Price, tokens and version of a reply, and whether the question is complete with it.

        A server that does not say how many tokens it has used is taken to have used the most.
        """
        body = json.loads(line)
        told = choices_of(body)
        choices = 0 if isinstance(told, str) else len(told)
        usage = body.get("usage") if isinstance(body, dict) else None
        tokens = [
            usage.get(name) if isinstance(usage, dict) else None
            for name in ("prompt_tokens", "completion_tokens")
        ]
        prompt, reply = (
            count if type(count) is int and 0 <= count <= _MOST_USED else None for count in tokens
        )
        if prompt is None:
            messages = self._prompt.messages(b"", row)
            prompt = most_prompt_tokens(messages, self._config.prompt_overhead)
        if reply is None:
            reply = self._max_tokens * max(choices, 1)
        price = self._price.of(prompt, reply) + (0 if before else self._price.answer)
        enough = choices + sum(map(count_choices, before)) >= self._votes
        # A reply without a choice would be asked for again for ever.
        return price, prompt + reply, _version(body), enough or choices == 0

    def ask(self, ids: NDArray[np.uint8], rows: pa.RecordBatch) -> Replies:
        """Put the questions, each once: the engine asks better, with limits and further tries.

        Raises:
            TeacherError: the server answers nobody, because of the key or the model's name.
        """
        found: list[Replies] = []
        broken: list[BaseException] = []

        def work() -> None:
            try:
                found.append(asyncio.run(self._ask(ids, rows)))
            except BaseException as error:
                broken.append(error)

        # In a thread of its own: the caller's may have an event loop that runs, as notebooks do.
        thread = threading.Thread(target=work, name="limbeck-ask")
        thread.start()
        thread.join()
        if broken:
            raise broken[0]
        return found[0]

    async def _ask(self, ids: NDArray[np.uint8], rows: pa.RecordBatch) -> Replies:
        places = asyncio.Semaphore(self._config.concurrency)
        keys = [bytes(key) for key in ids]

        async with self.connect() as connection:

            async def one(key: bytes, row: Mapping[str, object]) -> tuple[list[Reply], str | None]:
                replies: list[Reply] = []
                try:
                    async with places:
                        while not replies or not replies[-1].complete:
                            lines = [reply.raw for reply in replies]
                            replies.append(await connection.send(key, row, lines))
                except (Refused, Lost, Rejected) as error:
                    return replies, str(error)
                except Denied as error:
                    raise TeacherError(str(error)) from None
                return replies, None

            told = await asyncio.gather(
                *map(one, keys, rows.select(list(self.columns)).to_pylist())
            )
        return Replies(
            ids,
            [_LINE.join(one.raw for one in got) if got else None for got, _ in told],
            np.array([sum(one.price for one in got) for got, _ in told], np.int64),
            [failure for _, failure in told],
            [got[-1].version if got else None for got, _ in told],
        )

    def parse(self, replies: Replies) -> tuple[Answers, NDArray[np.bool_]]:
        """Read replies, each in the order in which its question listed the classes."""
        count = len(self.classes)
        probs: list[list[float]] = []
        ok = np.zeros(len(replies.ids), np.bool_)
        for row, (key, raw, failure) in enumerate(
            zip(replies.ids, replies.raw, replies.failure, strict=True)
        ):
            if raw is None or failure is not None:
                continue
            question = bytes(key)
            listed = self._read(question, raw).probs
            if listed is not None:
                ok[row] = True
                values = [0.0] * count
                for place, chance in zip(self._prompt.order(question), listed, strict=True):
                    values[place] = chance
                probs.append(values)
        matrix = torch.tensor(probs, dtype=torch.float32).reshape(len(probs), count)
        return Answers(replies.ids[ok], matrix), ok

    def explain(self, question: bytes, raw: bytes) -> str:
        """Why a raw reply cannot be read, in one sentence without the key."""
        # Before a sentence cuts it: half a key is one too. And after, for what JSON hid.
        hidden = self._secret.hide(raw.decode("utf-8", "replace")).encode()
        return self._secret.hide(self._read(question, hidden).failure)

    def _read(self, question: bytes, raw: bytes) -> Reading:
        lines = raw.split(_LINE)
        if self._letters:
            return read_logprobs(lines[0], LETTERS[: len(self.classes)])
        listed = [self._prompt.names[place] for place in self._prompt.order(question)]
        return read_votes(lines, listed, self._votes)


class _Connection:
    """Asks one question at a time of an open client."""

    def __init__(self, teacher: EndpointTeacher, client: Client) -> None:
        self._teacher = teacher
        self._client = client

    async def send(
        self, question: bytes, row: Mapping[str, object], before: Sequence[bytes]
    ) -> Reply:
        """Send the next request of a question.

        Raises:
            Refused, Lost, Rejected, Denied: there is no reply.
        """
        body = self._teacher.next_request(question, row, before)
        try:
            line = await self._client.post(body)
        except Lost as loss:
            most = self._teacher.most(row, before)
            raise Lost(str(loss), most=most, retry_after=loss.retry_after) from None
        return Reply(line, *self._teacher.settle(line, row, before))


def _version(body: object) -> str | None:
    """What the server calls the model that answered, and its configuration."""
    if not isinstance(body, dict):
        return None
    parts = [body.get(name) for name in ("model", "system_fingerprint")]
    told = [part for part in parts if isinstance(part, str) and part]
    return " ".join(told) or None
