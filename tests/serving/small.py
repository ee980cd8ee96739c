"""A home with everything promoted, small enough to be built in a second, and a real endpoint that writes answers as it is told."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
import uvicorn

from curriculum.crossencoder.model import CrossEncoder
from curriculum.grounding.verifier import Calibration, SupportVerifier
from curriculum.profile import Profile, load_profile
from curriculum.reranking.reranker import Reranker
from curriculum.retrieval.bm25 import build_bm25
from curriculum.retrieval.dense import Encoder, build_dense, embed_passages
from curriculum.serving.bundle import Bundles
from curriculum.serving.feedback import FeedbackStore
from curriculum.serving.served import Served
from curriculum.serving.service import Service
from curriculum.sources import model_folder
from curriculum.storage import ArtifactStore, Manifest
from tests.crossencoder.tiny import tiny_bert
from tests.retrieval.small import table

torch.set_num_threads(1)
TEXTS = {
    "project/tower#0": "The red tower of the city was built in 1889 and has 7 floors.",
    "project/river#0": "A green river flows past the house. It is 90 metres wide.",
    "project/list#0": "The python function returns a sorted list, and raises a value error where the list is empty.",
    "project/dog#0": "A dog and a cat live in the blue house.",
    "project/markup#0": "<b>bold</b> <script>document.title = 'run'</script> text with markup.",
}
CALIBRATION = Calibration(slope=0.0, numbers=-8.0, scope=0.0, intercept=4.0)  # the rule on numbers alone decides


def profile(encoder: Path, url: str = "http://127.0.0.1:9/v1", **sections: dict[str, Any]) -> Profile:
    """The starter profile over the small home; ``sections`` override. Nothing is put in force but when a test asks for it."""
    overrides: dict[str, Any] = {
        "retrieval": {"encoder": f"path:{encoder}", "max_tokens": 64},
        "generator": {"kind": "endpoint", "base_url": url, "model": "written", "retries": 0, "timeout_seconds": 20},
        "serving": {"poll_seconds": 3600},
    }
    return load_profile("starter", {name: {**overrides.get(name, {}), **sections.get(name, {})} for name in overrides | sections})


def make_home(folder: Path, encoder: Path) -> ArtifactStore:
    """A store in which index, reranker and verifier are promoted."""
    store, settings = ArtifactStore(str(folder / "artifacts")), profile(encoder).retrieval
    passages = table(TEXTS, title="Note")
    made = publish(store, "passages", "p1", lambda out: passages.to_parquet(out / "table.parquet"))
    work = folder / "work"
    lexical = build_bm25(passages, settings, work / "bm25")
    for name in ("vectors", "checkpoints", "bert"):
        (work / name).mkdir()
    model = Encoder(encoder, settings)
    dense = build_dense(embed_passages(passages, model, settings, work / "vectors", work / "checkpoints", lambda _: None), work / "dense")
    publish(store, "bm25_index", "b1", lambda out: shutil.copytree(lexical.path, out, dirs_exist_ok=True), made_from={"passages": made.version})
    facts = {"bm25": lexical.facts, "dense": dense.facts}

    def both(out: Path) -> None:
        shutil.copytree(lexical.path, out / "bm25")
        shutil.copytree(dense.path, out / "dense")

    store.refer("promoted_index", publish(store, "search_index", "i1", both, made_from={"bm25_index": "b1"}, facts=facts), facts)
    bert = tiny_bert(work / "bert")
    promote(store, "reranker", "r1", Reranker(CrossEncoder.start(bert, max_length=48, seed=0), weight=0.2))
    promote(store, "support_verifier", "v1", SupportVerifier(CrossEncoder.start(bert, max_length=48, seed=1), window_words=40, calibration=CALIBRATION))
    shutil.rmtree(work)
    return store


def publish(store: ArtifactStore, asset: str, version: str, write: Callable[[Path], Any], **more: Any) -> Manifest:
    """A version of an asset, written by ``write``."""
    with store.staging(asset) as staged:
        write(staged)
        return store.publish(staged, Manifest(asset=asset, version=version, key=version, kind="test", **more))


def promote(store: ArtifactStore, asset: str, version: str, model: Any) -> str:
    """Publish and promote a reranker or a verifier; the promoted version's name."""
    return store.refer(f"promoted_{asset.removeprefix('support_')}", publish(store, asset, version, model.save), {}).version


def make_service(folder: Path, store: ArtifactStore, settings: Profile, source: Callable[[Any], Any] = lambda bundles: bundles) -> Service:
    """The service over a store, as the command makes it."""
    bundles = source(Bundles(store, settings, lambda uri: model_folder(uri, folder)))
    return Service(lambda: Served(bundles), FeedbackStore(folder / "feedback", settings.serving.kept_answers), settings.rag, settings.serving, "small")


Script = Callable[[list[dict[str, str]]], Iterator[str]]


@contextmanager
def writing(script: Script) -> Iterator[str]:
    """The base URL of a real endpoint on this machine that gives what ``script`` gives for the messages of a request: streamed if asked so."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream" if asked.get("stream") else "application/json")
            self.end_headers()
            if not asked.get("stream"):
                message = {"role": "assistant", "content": "".join(script(asked["messages"]))}
                whole = {"id": "1", "object": "chat.completion", "created": 0, "model": "written"}
                self.wfile.write(json.dumps({**whole, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode())
                return
            try:
                for piece in script(asked["messages"]):
                    choice = {"index": 0, "delta": {"role": "assistant", "content": piece}, "finish_reason": None}
                    self._send({"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "written", "choices": [choice]})
                self.wfile.write(b"data: [DONE]\n\n")
            except OSError:
                pass  # the asker has gone

        def _send(self, chunk: dict[str, Any]) -> None:
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
            self.wfile.flush()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """The address of a real server of ``app`` in a thread of this process."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", access_log=False, timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            threading.Event().wait(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(15)
        assert not thread.is_alive()


def events(body: str) -> list[tuple[str, dict[str, Any]]]:
    """(name, data) of each server-sent event."""
    found = []
    for block in filter(None, body.split("\n\n")):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((fields["event"], json.loads(fields["data"])))
    return found
