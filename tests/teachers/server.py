"""A small OpenAI-compatible server that counts every request, and misbehaves when told to.

In a test it runs in a thread of its own (`with ModelServer() as server`). As a process of its own,

    python -m tests.teachers.server [--delay SECONDS]

it prints its address; `GET /asked` gives every question that it was ever asked, and `GET /count`
how many.
"""

import argparse
import asyncio
import hashlib
import json
import math
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

OPTION = re.compile(r"^([A-Z])\. (.*)$", re.MULTILINE)
NAME = re.compile(r"^- (.*)$", re.MULTILINE)
GOOD = ("fine", "lovely", "great", "warm", "witty", "bold")
SURE = 0.9


@dataclass(frozen=True)
class Request:
    """What a client has sent."""

    body: dict
    headers: dict[str, str]
    time: int
    """How many times this question was asked before."""
    at: float

    @property
    def text(self) -> str:
        """The question: the last message."""
        return self.body["messages"][-1]["content"]

    @property
    def listed(self) -> list[str]:
        """Class names in the order of the prompt."""
        prompt = self.body["messages"][0]["content"]
        return [name for _, name in OPTION.findall(prompt)] or NAME.findall(prompt)


def by_hash(text: str, names: Sequence[str]) -> list[float]:
    """Probabilities that depend on the text and the names, not on their order."""
    raw = [
        1 + hashlib.blake2b(f"{text}|{name}".encode(), digest_size=1).digest()[0] for name in names
    ]
    return [value / sum(raw) for value in raw]


def by_words(text: str, names: Sequence[str]) -> list[float]:
    """Knows good words; sure of itself, and right, where the classes are good and bad."""
    good = sum(word in GOOD for word in text.split()) > 0
    return [SURE if (name == "good") == good else 1 - SURE for name in names]


def by_another_hash(text: str, names: Sequence[str]) -> list[float]:
    """Another model."""
    return by_hash(f"again {text}", names)


MODELS = {"hash": by_hash, "hash again": by_another_hash, "words": by_words}


def completion(request: Request, **changes: object) -> dict:
    """A chat completion as a well-behaved server would send it."""
    names = request.listed
    model = MODELS.get(request.body["model"], by_hash)
    probs = model(request.text, names)
    letters = "logprobs" in request.body
    choices = []
    for index in range(request.body.get("n", 1)):
        place = _draw(probs, f"{request.text}|{index}|{request.time}")
        text = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[place] if letters else names[place]
        choice = {"index": index, "finish_reason": "stop", "logprobs": None,
                  "message": {"role": "assistant", "content": text}}  # fmt: skip
        if letters:
            top = [
                {"token": "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[i], "logprob": math.log(p), "bytes": None}
                for i, p in enumerate(probs)
            ]
            choice["logprobs"] = {"content": [{**top[place], "top_logprobs": top}]}
        choices.append(choice)
    prompt = sum(len(one["content"].encode()) for one in request.body["messages"]) // 4
    name = hashlib.blake2b(f"{request.text}|{request.time}".encode(), digest_size=8).hexdigest()
    return {
        "id": f"chatcmpl-{name}",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": f"{request.body['model']}-2026-01",
        "system_fingerprint": "fp_1",
        "choices": choices,
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": len(choices),
            "total_tokens": prompt + len(choices),
        },
    } | changes


def _draw(probs: Sequence[float], key: str) -> int:
    number = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest()) / 2**56
    for place, chance in enumerate(probs):
        number -= chance
        if number < 0:
            return place
    return len(probs) - 1


class Hang(Exception):
    """Never answer."""


class Reset(Exception):
    """Break the connection, as a crash would."""


@dataclass(frozen=True)
class Slowly:
    """A response that comes one byte at a time."""

    whole: bytes
    seconds_a_byte: float


Reply = dict | bytes | str | Slowly | None
"""A completion, the bytes of a whole response, the text that the model says, or None for the usual
completion."""
Behaviour = Callable[[Request], Reply | Awaitable[Reply]]


def response(
    body: bytes | dict | str, code: int = 200, *, length: int | None = None, **headers: str
) -> bytes:
    """The bytes of an HTTP response."""
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    data = data.encode() if isinstance(data, str) else data
    lines = [f"HTTP/1.1 {code} Some Reason", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(data) if length is None else length}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + data


def error(code: int, message: str = "no", *, kind: str = "", **headers: str) -> bytes:
    """A response that is an error."""
    told = {"error": {"message": message, "type": kind or "some_error", "code": kind or None}}
    return response(told, code, **headers)


def saying(request: Request, text: str | None, **changes: object) -> dict:
    """A completion whose every choice says `text`."""
    whole = completion(request, **changes)
    for choice in whole["choices"]:
        choice["message"]["content"] = text
        choice["logprobs"] = None
    return whole


@dataclass
class ModelServer:
    """The server.

    Args:
        behave: What it does with a request instead of the usual.
        delay: Seconds before each reply.
    """

    behave: Behaviour | None = None
    delay: float = 0.0
    requests: list[Request] = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)
    most_at_once: int = 0
    url: str = ""
    _at_once: int = 0

    def __enter__(self) -> "ModelServer":
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _work(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(self.start())
        ready.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def start(self, port: int = 0) -> asyncio.Server:
        """Listen; sets `url`."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", port, backlog=1024)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        return server

    @property
    def asked(self) -> list[str]:
        """Every question in the order asked."""
        return [request.text for request in self.requests]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
                data = await reader.readexactly(int(headers.get("content-length", 0)))
                if head[0].startswith("GET"):
                    count = "/count" in head[0]
                    told = json.dumps(len(self.requests) if count else self.asked)
                    writer.write(response(told))
                    continue
                headers["authorization"] = next(
                    (
                        line.split(": ", 1)[1]
                        for line in head
                        if line[:15].lower() == "authorization: "
                    ),
                    "",
                )
                self._at_once += 1
                self.most_at_once = max(self.most_at_once, self._at_once)
                try:
                    reply = await self._reply(json.loads(data), headers)
                finally:
                    self._at_once -= 1
                if isinstance(reply, Slowly):
                    for place in range(len(reply.whole)):
                        writer.write(reply.whole[place : place + 1])
                        await asyncio.sleep(reply.seconds_a_byte)
                    continue
                writer.write(reply)
                await writer.drain()
                if b"Content-Length: 99999" in reply:  # truncated: the rest never comes
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except Reset:
            # No lingering: the client gets a reset instead of an orderly end.
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        except asyncio.CancelledError:
            pass  # the server is closed
        finally:
            writer.close()

    async def _reply(self, body: dict, headers: dict[str, str]) -> bytes | Slowly:
        text = body["messages"][-1]["content"]
        request = Request(body, headers, self.counts[text], time.monotonic())
        self.counts[text] += 1
        self.requests.append(request)
        if self.delay:
            await asyncio.sleep(self.delay)
        try:
            reply = None if self.behave is None else self.behave(request)
            if isinstance(reply, Awaitable):
                reply = await reply
        except Hang:
            await asyncio.sleep(3600)
        if isinstance(reply, bytes | Slowly):
            return reply
        if isinstance(reply, str):
            return response(saying(request, reply))
        return response(reply or completion(request))


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--delay", type=float, default=0.0)

    async def serve(delay: float) -> None:
        server = ModelServer(delay=delay)
        listening = await server.start()
        print(server.url, flush=True)
        async with listening:
            await listening.serve_forever()

    asyncio.run(serve(parser.parse_args().delay))


if __name__ == "__main__":
    main()
