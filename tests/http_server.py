"""A real HTTP server on this machine that answers JSON with JSON: what a test's endpoint says is a function, everything else is here."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

Reply = Callable[[str, Mapping[str, str], Any], tuple[int, Any]]  # of path, headers and body; returns the status and the answer's body


@contextmanager
def answering(reply: Reply) -> Iterator[str]:
    """The address, without a path, of a server that answers every POST by ``reply``."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status, said = reply(self.path, self.headers, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b"" if said is None else json.dumps(said).encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def completion(model: str, text: str, prompt_tokens: int | None = None, completion_tokens: int = 0) -> dict[str, Any]:
    """The answer of the chat-completions protocol; it counts tokens where ``prompt_tokens`` is given."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    made: dict[str, Any] = {"id": "1", "object": "chat.completion", "created": 0, "model": model, "choices": [choice]}
    if prompt_tokens is not None:
        total = prompt_tokens + completion_tokens
        made["usage"] = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": total}
    return made
