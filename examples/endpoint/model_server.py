"""A tiny stand-in for a model API: it speaks the protocol of OpenAI's chat completions.

It knows some words of praise and of blame, and gives log-probabilities for the letters of the
classes that it finds in the prompt. Run it alone with

    python examples/endpoint/model_server.py 8000

or let `run_endpoint.py` start it.
"""

import json
import math
import re
import sys
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GOOD = {
    *("superb", "moving", "witty", "gripping", "lovely", "clever", "radiant", "graceful"),
    *("bold", "warm", "rich", "vivid"),
}
BAD = {
    *("dull", "wooden", "clumsy", "shrill", "boring", "lazy", "hollow", "stale", "bland"),
    *("tedious", "messy", "flat"),
}
KEY = "sk-example"
"""The key that it wants, as a paid API would."""


def opinion(text: str) -> float:
    """Probability that a review is friendly."""
    words = re.findall(r"\w+", text.lower())
    score = sum(word in GOOD for word in words) - sum(word in BAD for word in words)
    return 1 / (1 + math.exp(-1.5 * score))


def complete(request: dict) -> dict:
    """A chat completion: one letter, with the probability of each letter."""
    system, user = (message["content"] for message in request["messages"])
    options = re.findall(r"^([A-Z])\. (.*)$", system, re.MULTILINE)
    friendly = opinion(user)
    chances = [
        (letter, friendly if name == "friendly" else 1 - friendly) for letter, name in options
    ]
    tokens = [
        {"token": letter, "logprob": math.log(max(chance, 1e-9)), "bytes": None}
        for letter, chance in sorted(chances, key=lambda pair: -pair[1])
    ]
    choice = {
        "index": 0,
        "finish_reason": "length",
        "message": {"role": "assistant", "content": tokens[0]["token"]},
        "logprobs": {"content": [{**tokens[0], "top_logprobs": tokens}]},
    }
    prompt = (len(system) + len(user)) // 4
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": 0,
        "model": "word-counter-1",
        "choices": [choice],
        "usage": {"prompt_tokens": prompt, "completion_tokens": 1, "total_tokens": prompt + 1},
    }


class Handler(BaseHTTPRequestHandler):
    """Answers POST /v1/chat/completions."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Check the key and answer."""
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] == f"Bearer {KEY}":
            code, reply = 200, complete(request)
        else:
            code, reply = 401, {"error": {"message": "wrong key", "type": "invalid_request_error"}}
        body = json.dumps(reply).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Takes as many connections at once as a client may open."""

    daemon_threads = True
    request_queue_size = 128


def serve(port: int = 0) -> Server:
    """Listen on this machine alone; the caller runs `serve_forever`."""
    return Server(("127.0.0.1", port), Handler)


if __name__ == "__main__":
    listening = serve(int(sys.argv[1]))
    print(f"http://127.0.0.1:{listening.server_port}/v1")
    listening.serve_forever()
