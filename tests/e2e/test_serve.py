"""A person and the service: the real command, a real browser, the keyboard alone; and a promotion while it runs."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from curriculum.crossencoder.model import CrossEncoder
from curriculum.profile import load_profile
from curriculum.rag.settings import RagSettings
from curriculum.reranking.reranker import Reranker
from curriculum.serving.feedback import annotation_items
from curriculum.storage import ArtifactStore
from docs.screenshots import PROJECT, browser
from pipelines.daemon import end_group
from tests.crossencoder.tiny import tiny_bert
from tests.retrieval.conftest import encoder_folder  # noqa: F401 - a fixture
from tests.serving.small import make_home, profile, promote, writing
from tests.serving.test_abstention import promote as promote_threshold

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(
    not (shutil.which("chromium") or shutil.which("google-chrome")) or not shutil.which("chromedriver"),
    reason="no Chromium with a driver on this machine (Debian's packages chromium and chromium-driver)",
)]


@contextlib.contextmanager
def serving(home: Path, settings: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """``curriculum serve`` over ``home``; its address once it answers, and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "curriculum.cli", "serve", "--profile", str(settings), "--port", str(port)]
    environment = {**os.environ, "CURRICULUM_HOME": str(home), "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    with (home / "said").open("wb") as said:
        process = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=said, stderr=said, start_new_session=True)
    try:
        wait(lambda: process.poll() is not None or listens(port), 600)
        assert process.poll() is None, (home / "said").read_text()
        yield f"http://127.0.0.1:{port}", process
    finally:
        end_group(process)


def listens(port: int) -> bool:
    with contextlib.suppress(requests.RequestException):
        return requests.get(f"http://127.0.0.1:{port}/healthz", timeout=5).status_code == 200
    return False


def wait(until: Callable[[], Any], patience: float = 30.0) -> None:
    deadline = time.monotonic() + patience
    while not until():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def installed(folder: Path, encoder: Path, endpoint: str) -> tuple[ArtifactStore, Path]:
    """A home with everything that serving needs, under the profile's name; its store, and the profile's file."""
    made, work, settings = profile(encoder, endpoint, serving={"poll_seconds": 0.2}), folder / "work", folder / "small.yaml"
    sections = {name: getattr(made, name).model_dump(mode="json") for name in ("retrieval", "generator", "rag", "serving")}
    settings.write_text(yaml.safe_dump(sections))
    work.mkdir()
    make_home(work, encoder)
    (folder / "artifacts").mkdir()
    shutil.move(work / "artifacts", folder / "artifacts" / "small")
    return ArtifactStore(str(folder / "artifacts" / "small")), settings


def ask(page: Any) -> None:
    """Type the question; the answer cites its passage, and withholds what no passage supports."""
    assert page.switch_to.active_element.get_attribute("id") == "query"
    parts = page.find_elements(By.CSS_SELECTOR, "input, button, a, section")
    assert [part.get_attribute("outerHTML") for part in parts if part.is_displayed() and not part.accessible_name] == []
    assert page.find_element(By.ID, "query").accessible_name == "Question or search words"
    page.switch_to.active_element.send_keys("When was the red tower built?", Keys.ENTER)
    wait(lambda: text(page, "status") == "Answer complete.")
    assert "The red tower was built in 1889.[1]" in text(page, "answer") and "metres high" not in page.page_source
    assert "A sentence that no passage supports was withheld." in text(page, "answer") and "ms" in text(page, "times")


def open_citation(page: Any) -> None:
    """Enter on a citation opens the passage, with the score of each leg."""
    cite = page.find_element(By.CSS_SELECTOR, "#answer a.cite")
    assert cite.accessible_name.startswith("open passage ")
    cite.send_keys(Keys.ENTER)
    opened = page.switch_to.active_element.find_element(By.XPATH, "..")
    assert opened.get_attribute("open") and "built in 1889 and has 7 floors" in opened.text
    assert all(leg in opened.text for leg in ("bm25", "dense", "fused", "reranker", "final"))


def search(page: Any) -> None:
    """The second button is two tabs away; a passage that holds markup is shown as text."""
    query = page.find_element(By.ID, "query")
    query.clear()
    query.send_keys("bold text with markup", Keys.TAB, Keys.TAB)
    assert page.switch_to.active_element.get_attribute("id") == "search"
    page.switch_to.active_element.send_keys(Keys.ENTER)
    wait(lambda: "passages found" in text(page, "status"))
    assert page.title == "Search and ask"
    assert "<script>document.title" in page.find_element(By.ID, "passages").get_attribute("textContent")


def abstain(page: Any, store: ArtifactStore, url: str, rag: RagSettings) -> None:
    """Once a threshold is promoted, the same question gets no answer, and the page says why."""
    version = promote_threshold(store, rag)
    wait(lambda: requests.get(f"{url}/healthz", timeout=20).json()["versions"].get("promoted_abstention") == version, 60)
    page.refresh()
    page.find_element(By.ID, "query").send_keys("When was the red tower built?", Keys.ENTER)
    wait(lambda: text(page, "status") == "Answer complete.")
    said = text(page, "answer")
    assert "I do not know: the support of what was written is 0." in said and "answers are given from 0.7000." in said
    assert "A sentence was withheld with the whole answer." in said and "1889" not in said


def text(page: Any, name: str) -> str:
    return str(page.find_element(By.ID, name).text)


def test_a_question_by_keyboard_its_citation_its_feedback_and_a_hot_swap(tmp_path: Path, encoder_folder: Path) -> None:  # noqa: F811
    with writing(lambda _: iter(["The red tower was built in 1889. ", "It is 412 metres high. Done"])) as endpoint:
        store, settings = installed(tmp_path, encoder_folder, endpoint)
        with serving(tmp_path, settings) as (url, process), browser() as page:
            page.get(url)
            ask(page)
            open_citation(page)
            page.find_element(By.CSS_SELECTOR, "#judge button").send_keys(Keys.ENTER)
            wait(lambda: "Noted: the answer is helpful." in text(page, "judge"))
            assert annotation_items(tmp_path / "feedback" / "small")["helpful"].tolist() == [1]
            search(page)
            assert [line for line in page.get_log("browser") if line["level"] == "SEVERE"] == []

            bert = tmp_path / "bert"
            bert.mkdir()
            promote(store, "reranker", "r2", Reranker(CrossEncoder.start(tiny_bert(bert), max_length=48, seed=3), weight=1.0))
            answers: list[requests.Response] = []

            def swapped() -> bool:
                answers.append(requests.post(f"{url}/search", json={"query": "red tower"}, timeout=20))
                assert answers[-1].status_code == 200
                return bool(answers[-1].json()["versions"]["promoted_reranker"] == "reranker-r2")

            wait(swapped, 60)
            abstain(page, store, url, load_profile(str(settings)).rag)
            process.send_signal(signal.SIGINT)
            wait(lambda: process.poll() is not None)
    said = (tmp_path / "said").read_text()
    assert "serving on http://127.0.0.1:" in said and "red tower" not in said and "Traceback" not in said
