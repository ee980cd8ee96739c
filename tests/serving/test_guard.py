"""What is refused, and what is never said: keys, hosts, rates, long and slow bodies, a full lane, secrets in logs."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from curriculum import cli
from curriculum.errors import UserError
from curriculum.serving.app import create_app
from curriculum.serving.guard import RateLimit
from curriculum.serving.server import KEY, serve
from curriculum.storage import ArtifactStore
from tests.serving.conftest import Told
from tests.serving.small import listening, profile

Make = Callable[..., TestClient]
CANARY = "canary-SERVE-4711"


def test_a_key_is_asked_of_everything_that_computes_or_tells(client: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    web = client(key=CANARY)
    for path in ("/search?query=red", "/ask?question=red", "/metrics"):
        for headers in ({}, {"X-API-Key": CANARY[:-1]}, {"Authorization": "Bearer x"}, {"Authorization": f"Basic {CANARY}"}):
            refused = web.get(path, headers=headers)
            assert refused.status_code == 401 and refused.headers["www-authenticate"] and CANARY not in refused.text
    assert web.post("/feedback", json={}).status_code == 401
    assert web.get("/search?query=red", headers={"X-API-Key": CANARY}).status_code == 200
    assert web.get("/metrics", headers={"Authorization": f"Bearer {CANARY}"}).status_code == 200
    for path in ("/", "/healthz", "/openapi.json"):
        assert web.get(path).status_code == 200
    assert CANARY not in caplog.text and CANARY not in web.get("/metrics", headers={"X-API-Key": CANARY}).text
    assert "securitySchemes" in web.get("/openapi.json").json()["components"]


def test_a_page_that_rebinds_its_name_to_this_machine_is_refused(client: Make) -> None:
    web = client()
    assert web.get("/search?query=red", headers={"Host": "evil.example:8080"}).status_code == 421
    assert web.get("/healthz", headers={"Host": "127.0.0.1.evil.example"}).status_code == 421


def test_more_than_the_rate_is_429_with_when_to_come_back(client: Make) -> None:
    web = client(serving={"requests_per_minute": 2})
    statuses = [web.get("/search?query=red") for _ in range(3)]
    assert [s.status_code for s in statuses] == [200, 200, 429] and 1 <= int(statuses[-1].headers["retry-after"]) <= 31
    assert web.get("/healthz").status_code == 200


def test_the_bucket_fills_evenly_and_forgets_old_addresses() -> None:
    now = [0.0]
    rate = RateLimit(60, lambda: now[0])
    assert [rate.wait("a") for _ in range(60)] == [0.0] * 60 and rate.wait("a") == pytest.approx(1.0) and rate.wait("b") == 0.0
    now[0] = 1.5
    assert rate.wait("a") == 0.0 and rate.wait("a") == pytest.approx(0.5)
    for i in range(10_001):
        rate.wait(f"address {i}")
    assert len(rate._buckets) == 10_000 and "a" not in rate._buckets
    assert all(RateLimit(0).wait("a") == 0.0 for _ in range(5))


def test_a_long_body_is_413_whether_it_says_so_or_not(client: Make) -> None:
    web = client(serving={"max_body_bytes": 1024})
    long = b'{"query": "' + b"x" * 2000 + b'"}'
    kind = {"Content-Type": "application/json"}
    chunked = web.post("/search", content=iter([long[:1000], long[1000:]]), headers=kind)
    for refused in (web.post("/search", content=long, headers=kind), chunked):
        assert refused.status_code == 413 and refused.json() == {"detail": "Content Too Large"}
    assert web.post("/search", content=b"query=red").status_code == 422  # what a form of another site could send is no JSON


def test_a_body_that_does_not_arrive_is_408(client: Make) -> None:
    with listening(create_app(client(serving={"body_seconds": 0.2}).service)) as url, socket.create_connection(("127.0.0.1", urlsplit(url).port)) as wire:
        wire.sendall(b'POST /search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"que')
        wire.settimeout(10)
        said = wire.recv(4096)
    assert said.startswith(b"HTTP/1.1 408")


def test_a_full_lane_is_503_and_a_slow_one_504(client: Make, told: Told) -> None:
    web = client(serving={"max_waiting": 1, "search_seconds": 0.3})
    service, begun, go_on = web.service, threading.Event(), threading.Event()

    def held() -> None:
        begun.set()
        go_on.wait(20)

    holding = service.searches._submit(held)
    assert begun.wait(5)
    full = web.get("/search?query=red")
    assert full.status_code == 503 and full.headers["retry-after"] == "1"
    service.searches._free = 1  # one more place: the call waits behind the one that holds the lane
    assert web.get("/search?query=red").status_code == 504
    go_on.set()
    holding.result(5)
    deadline = time.monotonic() + 10
    while service.searches._free < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert service.searches._free == 2, "a call that was given up gives its place back"
    service.settings = service.settings.model_copy(update={"search_seconds": 30.0})
    assert web.get("/search?query=red").status_code == 200


def test_a_question_waits_for_no_lane_that_is_full(client: Make, told: Told) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def held() -> Iterator[str]:
        begun.set()
        go_on.wait(20)
        yield "It has 7 floors."

    told.pieces = held
    web = client(serving={"max_waiting": 1})
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(web.post, "/ask", json={"question": "How many floors?"})
        assert begun.wait(20)
        assert web.post("/ask", json={"question": "And now?"}).status_code == 503
        deadline = time.monotonic() + 10
        while web.service.searches.full and time.monotonic() < deadline:  # a place is given back just after its answer
            time.sleep(0.01)
        assert web.get("/search?query=red").status_code == 200, "searches do not wait for answers"
        go_on.set()
        assert first.result(20).status_code == 200


def test_the_headers_and_the_policy_of_the_page(client: Make) -> None:
    page = client().get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and policy.count("sha256-") == 2
    assert page.headers["x-content-type-options"] == "nosniff" and page.headers["cache-control"] == "no-store"
    assert "http://" not in page.text and "https://" not in page.text and " src=" not in page.text  # nothing is fetched from elsewhere
    assert "innerHTML" not in page.text and "onclick" not in page.text


def test_queries_are_in_no_log_and_no_metric(client: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    web = client()
    for made in (web.get("/search", params={"query": CANARY}), web.get(f"/{CANARY}"), web.request("PROPFIND", f"/search?query={CANARY}")):
        assert made.status_code in (200, 404, 405)
    own = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]  # the client's own log
    assert CANARY not in "".join(record.getMessage() for record in own)
    text = web.get("/metrics").text
    assert CANARY not in text and 'path="other"' in text and 'curriculum_requests_total{method="GET",path="/search",status="200"} 1.0' in text
    assert 'curriculum_stage_seconds_count{stage="bm25"} 1.0' in text and 'version="search_index-i1"' in text


def test_another_host_than_this_machine_needs_a_key(tmp_path: Path, encoder_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)
    with pytest.raises(UserError, match=f"set {KEY}"):
        serve(profile(encoder_folder), ArtifactStore(str(tmp_path)), tmp_path, host="0.0.0.0", port=8080)
    monkeypatch.setenv(KEY, CANARY)
    with pytest.raises(UserError, match="holds no promoted_index") as refused:  # past the key, nothing is there to be served
        serve(profile(encoder_folder), ArtifactStore(str(tmp_path)), tmp_path, host="0.0.0.0", port=8080)
    assert CANARY not in str(refused.value)


def test_the_command_listens_on_loopback_unless_told_otherwise(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    import curriculum.serving.server

    told: list[dict] = []
    monkeypatch.setattr(curriculum.serving.server, "serve", lambda *_, **given: told.append(given))
    monkeypatch.setenv("CURRICULUM_ARTIFACTS", str(store.root))
    assert CliRunner().invoke(cli.app, ["serve"]).exit_code == 0
    assert CliRunner().invoke(cli.app, ["serve", "--host", "::1", "--port", "9000"]).exit_code == 0
    assert told == [{"host": "127.0.0.1", "port": 8080}, {"host": "::1", "port": 9000}]


def test_without_a_promotion_the_command_is_one_line_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom curriculum import cli\nsys.argv = ['curriculum', 'serve']\n"
        "try:\n    cli.main()\nfinally:\n    print(sorted({'torch', 'transformers', 'jnius', 'uvicorn'} & set(sys.modules)))"
    )
    environment = {**os.environ, "CURRICULUM_HOME": str(tmp_path), "PYTHONPATH": str(cli.PROJECT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout.strip() == "[]"
    assert done.stderr.startswith("error: ") and "run `curriculum run --profile starter` first" in done.stderr and len(done.stderr.splitlines()) == 1
