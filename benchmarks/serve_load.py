"""Load: clients that ask a running `curriculum serve` one request after another, for as long as asked; what was held, and what was lost.

python -m benchmarks.serve_load [--url http://127.0.0.1:8080] [--seconds 600] [--clients 4] [--path search]

The service's own rate limit counts these clients as one address: serve a profile with `serving: {requests_per_minute: 0}`.
The key, where the service asks for one, is read from CURRICULUM_SERVE_KEY.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import requests

from curriculum.corpora.notes import load_notes, load_questions
from curriculum.hardware import describe_hardware

NOTES = Path(__file__).resolve().parent.parent / "notes"
FIELD = {"search": "query", "ask": "question"}


class Client(threading.Thread):
    """One client: asks, reads the answer to its end, asks again. Its milliseconds and what went wrong are kept."""

    def __init__(self, url: str, path: str, questions: list[str], end: float, seed: int) -> None:
        super().__init__(daemon=True)
        self._url, self._path, self._questions, self._end, self._draw = f"{url}/{path}", path, questions, end, random.Random(seed)
        self.milliseconds: list[float] = []
        self.failures: Counter[str] = Counter()

    def run(self) -> None:
        key = os.environ.get("CURRICULUM_SERVE_KEY", "")
        with requests.Session() as session:
            session.headers.update({"X-API-Key": key} if key else {})
            while time.monotonic() < self._end:
                begun = time.perf_counter()
                failure = self._ask(session)
                if failure:
                    self.failures[failure] += 1
                else:
                    self.milliseconds.append(1000 * (time.perf_counter() - begun))

    def _ask(self, session: requests.Session) -> str:
        """One request; what went wrong, or ""."""
        try:
            answer = session.post(self._url, json={FIELD[self._path]: self._draw.choice(self._questions)}, timeout=180)
        except requests.RequestException as error:
            return type(error).__name__
        if answer.status_code != 200:
            return str(answer.status_code)
        return "" if self._path == "search" or "event: done" in answer.text else "the answer broke off"


def hold(url: str, path: str, seconds: float, clients: int, questions: list[str]) -> dict[str, object]:
    """Requests per second, the quantiles of the milliseconds, and every failure by its kind."""
    before, begun = requests.get(f"{url}/healthz", timeout=10).json(), time.monotonic()
    running = [Client(url, path, questions, begun + seconds, seed) for seed in range(clients)]
    for client in running:
        client.start()
    for client in running:
        client.join()
    took, failures = time.monotonic() - begun, sum((client.failures for client in running), Counter())
    times = np.array([t for client in running for t in client.milliseconds])
    quantiles = {f"p{q}_ms": float(np.percentile(times, q)) for q in (50, 95, 99)} if len(times) else {}
    swaps = requests.get(f"{url}/healthz", timeout=10).json()["swaps"] - before["swaps"]
    return {
        "path": path, "clients": clients, "seconds": took, "answered": len(times), "requests_per_second": len(times) / took, **quantiles,
        "failed": sum(failures.values()), "failures": dict(failures), "swaps": swaps, "versions": before["versions"],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--path", choices=sorted(FIELD), default="search")
    asked = parser.parse_args()
    questions = load_questions(NOTES, load_notes(NOTES))["question"].astype(str).tolist()
    held = hold(asked.url.rstrip("/"), asked.path, asked.seconds, asked.clients, questions)
    print(json.dumps({"hardware": describe_hardware("cpu"), **held}, indent=1))


if __name__ == "__main__":
    main()
