"""Screenshots of the UI, taken from a finished home by ``make screenshots``, or ``docs/screenshots.py --home FOLDER``.

The UI is started as ``make ui`` starts it, on a copy of the home, and a headless Chromium looks at it. Needs Debian's packages
chromium and chromium-driver; nothing is downloaded. The red guardrail is a planted one: in the copy, every vector of the dense
index is filed under its neighbour's id, and the search report measures that. The backfill is the home's last, or one of the copy's own.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from pipelines.daemon import end_group

PROJECT = Path(__file__).resolve().parent.parent
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars",
)  # fmt: skip
_LOADED = "{ workspaceOrError { __typename ... on Workspace { locationEntries { locationOrLoadError { __typename } } } } }"
_MOST_BYTES = 60_000
_LISTED = {
    "schedule": "query($where: RepositorySelector!) { schedulesOrError(repositorySelector: $where) { ... on Schedules { results { name } } } }",
    "sensor": "query($where: RepositorySelector!) { sensorsOrError(repositorySelector: $where) { ... on Sensors { results { name } } } }",
}
_START = {
    "schedule": "mutation($which: ScheduleSelector!) { startSchedule(scheduleSelector: $which) { __typename } }",
    "sensor": "mutation($which: SensorSelector!) { startSensor(sensorSelector: $which) { __typename } }",
}


def ask(url: str, query: str, **variables: Any) -> Any:
    """The ``data`` of a GraphQL query.

    Raises:
        RuntimeError: the server answered with errors.
    """
    answer = requests.post(f"{url}/graphql", json={"query": query, "variables": variables}, timeout=60).json()
    if answer.get("errors"):
        raise RuntimeError(f"GraphQL: {answer['errors'][0]['message']}")
    return answer["data"]


def _is_loaded(url: str) -> bool:
    with contextlib.suppress(requests.RequestException, RuntimeError, ValueError):
        entries = ask(url, _LOADED)["workspaceOrError"].get("locationEntries", [])
        return [entry["locationOrLoadError"] for entry in entries] == [{"__typename": "RepositoryLocation"}]
    return False


@contextlib.contextmanager
def served(home: Path, *, patience: float = 240.0) -> Iterator[str]:
    """The UI and its daemon over ``home``, on a free port of this machine; gone with everything they started afterwards.

    Raises:
        RuntimeError: the code location did not load within ``patience`` seconds; what the server said is in the message.
    """
    with socket.socket() as free, tempfile.TemporaryFile() as said:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        environment = {**os.environ, "CURRICULUM_HOME": str(home), "PYTHONPATH": str(PROJECT)}
        command = [sys.executable, "-m", "curriculum.cli", "ui", "--port", str(port)]
        server = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=said, stderr=said, start_new_session=True)
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + patience
        try:
            while not _is_loaded(url):
                if server.poll() is not None or time.monotonic() > deadline:
                    said.seek(0)
                    raise RuntimeError(f"the UI did not load the definitions: {said.read().decode(errors='replace')[-2000:]}")
                time.sleep(0.5)
            yield url
        finally:
            end_group(server)


@contextlib.contextmanager
def browser(width: int = 1440, height: int = 900) -> Iterator[Any]:
    """A headless Chromium with a profile of its own.

    Raises:
        RuntimeError: Chromium or its driver is not installed.
    """
    chromium, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not chromium or not driver:
        raise RuntimeError("no Chromium with a driver on this machine (Debian's packages chromium and chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    with tempfile.TemporaryDirectory(prefix="chromium-") as folder:
        for flag in (*_FLAGS, f"--window-size={width},{height}", f"--user-data-dir={folder}"):
            options.add_argument(flag)
        page = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
        try:
            yield page
        finally:
            page.quit()


def see(page: Any, url: str, *texts: str, patience: float = 120.0) -> None:
    """Open ``url`` and wait until every text is on the page and nothing on it is still loading.

    Raises:
        RuntimeError: the page did not load; what is missing is named.
    """
    page.get(url)
    deadline = time.monotonic() + patience
    while True:
        shown = page.execute_script("return document.body.innerText")
        absent = [text for text in texts if text not in shown] + (["the end of 'Loading'"] if "Loading" in shown else [])
        if not absent:
            time.sleep(1.0)  # graphs and plots are drawn just after their text
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"the page {url} did not load in {patience:.0f} s: {', '.join(absent)} is missing")
        time.sleep(0.3)


def keep(page: Any, name: str) -> Path:
    """Write what the page shows to docs/NAME.png, in a palette of 64 colours.

    Raises:
        RuntimeError: the picture is above 60 KB: each change of it would weigh on every clone.
    """
    from PIL import Image

    path = Path(__file__).with_name(f"{name}.png")
    Image.open(io.BytesIO(page.get_screenshot_as_png())).convert("RGB").quantize(64).save(path, optimize=True)
    if path.stat().st_size > _MOST_BYTES:
        raise RuntimeError(f"{path} has {path.stat().st_size} bytes, above {_MOST_BYTES}; take a smaller window")
    print(f"{path}: {path.stat().st_size} bytes", flush=True)
    return path


def command(home: Path, module: str, *arguments: str) -> int:
    """Run ``python -m MODULE ARGUMENTS`` on ``home``; its exit code."""
    environment = {**os.environ, "CURRICULUM_HOME": str(home), "DAGSTER_HOME": str(home / "dagster"), "PYTHONPATH": str(PROJECT)}
    return subprocess.run([sys.executable, "-m", module, *arguments], cwd=PROJECT, env=environment, check=False).returncode


def plant_regression(home: Path, profile: str = "starter") -> None:
    """File every vector of the dense index under its neighbour's id, as a wrong join would, and measure that.

    Raises:
        RuntimeError: no guardrail stopped it.
    """
    from curriculum.storage import ArtifactStore

    store = ArtifactStore(str(home / "artifacts" / profile))
    made = store.manifest("dense_index")
    if made is None:
        raise RuntimeError(f"{home} has no dense index; finish `make run` there first")
    with store.staging("dense_index") as staged:
        shutil.copytree(store.path(made), staged, dirs_exist_ok=True)
        for path in staged.glob("*/ids.json"):
            ids = json.loads(path.read_text(encoding="utf-8"))
            path.write_text(json.dumps(ids[1:] + ids[:1]), encoding="utf-8")
        store.publish(staged, made.model_copy(update={"version": "planted", "key": "planted"}))
    if command(home, "dagster", "asset", "materialize", "-m", "pipelines.definitions", "--select", "hybrid_search_report") == 0:
        raise RuntimeError("the planted regression was stopped by no guardrail")


@contextlib.contextmanager
def copied(home: Path) -> Iterator[Path]:
    """A copy of ``home`` to do anything to, with the same models."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "curriculum"
        shutil.copytree(home, copy, ignore=shutil.ignore_patterns("models", "work", "site"))
        (copy / "models").symlink_to(home / "models")
        yield copy


def lineage(page: Any, url: str) -> None:
    """The groups with one of them open; kinds and checks on the nodes around a promotion; an asset with its group, owner and kinds."""
    see(page, f"{url}/asset-groups?expanded=global%40global%3Arag", "rag_answers", "foundations")
    keep(page, "lineage_groups")
    see(page, f"{url}/assets/promoted_adapter?view=lineage", "adapter_report", "qlora_adapter", "torch")
    keep(page, "lineage_kinds")
    see(page, f"{url}/assets/attention_study?view=overview", "Latest materialization", "Owners", "Kinds", "Latest check results")
    keep(page, "asset")


def figures(page: Any, url: str) -> None:
    """The tables and plots of a study's latest materialisation, and its checks."""
    see(page, f"{url}/assets/attention_study?view=events", "Materialized in run", "plot/memory")
    row = page.find_element("xpath", "//*[text()='metrics']")
    page.execute_script("arguments[0].scrollIntoView()", row)
    time.sleep(1.0)
    keep(page, "asset_figures")
    page.find_element("xpath", "//tr[td//text()='plot/memory' or th//text()='plot/memory']//*[text()='[Show Markdown]']").click()
    time.sleep(2.0)
    keep(page, "asset_plot")
    see(page, f"{url}/assets/attention_study?view=checks", "Latest execution", "Passed")
    keep(page, "asset_checks")


def guardrail(page: Any, url: str) -> None:
    """The check that stopped the planted regression, and its run."""
    check = "regression_ndcg_at_10__dense"
    see(page, f"{url}/assets/hybrid_search_report?view=checks&checkDetail={check}", check, "Latest execution", "Failed")
    keep(page, "red_guardrail")
    run = ask(url, "{ runsOrError(limit: 1) { ... on Runs { results { id status } } } }")["runsOrError"]["results"][0]
    if run["status"] != "FAILURE":
        raise RuntimeError(f"the run with the planted regression is {run['status']}")
    see(page, f"{url}/runs/{run['id']}?logs=type%3AASSET_CHECK_EVALUATION", check)
    keep(page, "red_run")


def automation(page: Any, url: str) -> None:
    """Every schedule and sensor, switched on."""
    where = {"repositoryName": "__repository__", "repositoryLocationName": "pipelines.definitions"}
    for kind in ("schedule", "sensor"):
        listed = ask(url, _LISTED[kind], where=where)[f"{kind}sOrError"]["results"]
        for state in listed:
            ask(url, _START[kind], which={**where, f"{kind}Name": state["name"]})
    see(page, f"{url}/automation", "weekly_retraining", "nightly_guardrails", "changed_files")
    deadline, on = time.monotonic() + 60, 0
    while on < 5 and time.monotonic() < deadline:  # the switches are filled in after the names
        time.sleep(1)
        on = len(page.find_elements("css selector", "input[type=checkbox]:checked"))
    if on < 5:
        raise RuntimeError(f"{on} schedules and sensors are on")
    keep(page, "automation")


def backfill(page: Any, url: str) -> None:
    """The latest backfill of the copy: one run a partition."""
    found = ask(url, "{ partitionBackfillsOrError(limit: 1) { ... on PartitionBackfills { results { id } } } }")
    results = found["partitionBackfillsOrError"].get("results") or []
    if not results:
        raise RuntimeError("the backfill of the copy left no trace")
    see(page, f"{url}/runs/b/{results[0]['id']}?tab=runs", results[0]["id"], "fusion_rows", "Success")
    keep(page, "backfill")


SHOTS = (lineage, figures, guardrail, backfill, automation)


def main() -> None:
    """Every picture, or those asked for, from a copy of a home."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--home", type=Path, default=PROJECT / ".curriculum", help="a home in which `make run` finished")
    options.add_argument("--only", nargs="+", choices=[shots.__name__ for shots in SHOTS], help="these pictures instead of all")
    given = options.parse_args()
    home, wanted = given.home.absolute(), [shots for shots in SHOTS if not given.only or shots.__name__ in given.only]
    with copied(home) as copy:
        if backfill in wanted and not (copy / "backfills").exists():
            command(copy, "curriculum.cli", "backfill", "fusion_row", "--all")
        if guardrail in wanted:
            plant_regression(copy)
        with served(copy) as url, browser() as page:
            for shots in wanted:
                shots(page, url)


if __name__ == "__main__":
    main()
