"""A person's first click: the real UI in a headless browser, an asset materialised from its page, and what that stored."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from curriculum.storage import ArtifactStore
from docs.screenshots import browser, see, served

ASSET = "prompt_cases"
STATUS = "//span[.='{}']/following-sibling::div"  # the text of the label is in several nodes

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(
    not (shutil.which("chromium") or shutil.which("google-chrome")) or not shutil.which("chromedriver"),
    reason="no Chromium with a driver on this machine (Debian's packages chromium and chromium-driver)",
)]


def icons(page: Any, label: str) -> list[str]:
    """The icons in the page's own status element, such as run_success."""
    found = page.find_elements("xpath", STATUS.format(label) + "//*[@role='img']")
    return [str(icon.get_attribute("aria-label")) for icon in found]


def test_clicking_materialize_turns_the_asset_green_and_stores_it(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "artifacts" / "starter"))
    with served(tmp_path) as url, browser() as page:
        see(page, f"{url}/assets/{ASSET}?view=overview", "Latest materialization", "Never materialized", "Materialize")
        assert icons(page, "Latest materialization") == [] and store.manifest(ASSET) is None
        page.find_element("xpath", "//button[contains(., 'Materialize')]").click()
        deadline = time.monotonic() + 120
        while icons(page, "Latest materialization") != ["run_success"] and time.monotonic() < deadline:
            time.sleep(0.5)
        assert icons(page, "Latest materialization") == ["run_success"]
        manifest = store.manifest(ASSET)
        assert manifest is not None and (store.path(manifest) / "table.parquet").stat().st_size > 0
        see(page, f"{url}/assets/{ASSET}?view=checks", "rows_and_unique_ids", "Passed", "0 ids twice")
        see(page, f"{url}/assets/{ASSET}?view=events", manifest.version)
    assert not any(str(tmp_path) in command for command in commands())


def commands() -> list[str]:
    """The environment and command line of every process that can be read: none may be left with this test's home."""
    read = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            read.append((process / "cmdline").read_text() + (process / "environ").read_text() if process.name != "self" else "")
        except (OSError, UnicodeDecodeError):
            continue
    return read


def test_a_page_that_does_not_load_is_named(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<body>something else</body>")
    with browser() as page, pytest.raises(RuntimeError, match=r"page.html did not load in 2 s: Latest materialization is missing"):
        see(page, (tmp_path / "page.html").as_uri(), "something", "Latest materialization", patience=2)
