"""A small OpenAI-compatible server on the loopback interface, which can also misbehave."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What the server sends: a body as it is, after a pause."""

    body: str | bytes
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    pause: float = 0.0


def completion(text: str | None, finish_reason: str = "stop", **message: Any) -> Answer:
    """A chat completion in due form."""
    choice = {
        "index": 0,
        "finish_reason": finish_reason,
        "message": {"role": "assistant", "content": text, **message},
    }
    body = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    return Answer(json.dumps(body))


class ChatServer:
    """Serves while the block runs.

    Args:
        answer: body of a request → what to send.

    Attributes:
        requests: bodies in the order of arrival.
        times: when they came.
        keys: the ``Authorization`` headers.
    """

    def __init__(self, answer: Callable[[dict[str, Any]], Answer]) -> None:
        self.requests: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.keys: list[str | None] = []
        server = self
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    server.requests.append(body)
                    server.times.append(time.monotonic())
                    server.keys.append(self.headers["Authorization"])
                    reply = answer(body)
                time.sleep(reply.pause)
                content = reply.body.encode() if isinstance(reply.body, str) else reply.body
                self.send_response(reply.status)
                for name, value in (("Content-Type", "application/json"), *reply.headers):
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, address: Any) -> None:
                """A client that hangs up, or is killed, is what some tests are about."""

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> ChatServer:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def in_turn(answers: Iterable[Answer]) -> Callable[[dict[str, Any]], Answer]:
    """Send these, one after the other, whatever is asked."""
    queue = iter(answers)
    return lambda body: next(queue)


def cooperative(body: dict[str, Any]) -> Answer:
    """What a good model might answer to the shipped templates."""
    user, seed = body["messages"][1]["content"], body["seed"]
    if prompt := re.search(r'Prompt: "(.*?)"\. Answer', user):
        concept = re.search(r'nothing of "(.*?)"', user)[1]
        return completion(json.dumps([prompt[1].replace(concept, "paper flower")]))
    count = int(re.search(r"(?:Write|Name) (\d+)", user)[1])
    if concept := re.search(r'image of "(.*?)"', user):
        texts = [f"{concept[1]} beside lamp {(seed + 7 * i) % 9973}" for i in range(count)]
        return completion("Sure, here they are:\n```json\n" + json.dumps(texts) + "\n```")
    return completion("\n".join(f"{i + 1}. thing {(seed + i) % 9973}" for i in range(count)))
