"""Fixtures every area shares: resources over a temporary folder, one thread, no network."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # no test is timed: its machine may have other work
settings.load_profile("untimed")
# before torch is imported, and whatever the shell says: two workers of two threads each on two cores wait for one another, for minutes; and
# what a test breaks on purpose is broken in its own process, where with one thread the cells of a study are computed
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", RAGAS_DO_NOT_TRACK="true", TOKENIZERS_PARALLELISM="false")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Under ``--dist loadgroup`` a file's tests stay on one worker, which keeps its fixtures; so do the files of a folder that shares some.

    A file that materialises assets or starts processes is marked ``integration``: `make unit` leaves it out.
    """
    for item in items:
        if {"dg", "subprocess"} & vars(item.module).keys():  # type: ignore[attr-defined]
            item.add_marker(pytest.mark.integration)
        folder = item.path.parent
        item.add_marker(pytest.mark.xdist_group(folder.name if (folder / "conftest.py").exists() else f"{folder.name}/{item.path.stem}"))


@pytest.fixture(autouse=True, scope="module")
def _libraries_are_no_garbage() -> None:
    """Take what is imported by now out of the collector's sight: memory is released around every asset, and each time it would look through
    the 900,000 objects of torch, transformers and mteb, a second long."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def resources(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """``resources(reader={...}, ...)``: every resource of the starter profile over ``tmp_path``, sections overridden."""
    from resources.build import build_resources

    def build(**overrides: Any) -> dict[str, Any]:
        return build_resources("starter", tmp_path, overrides=overrides, journal=False)

    return build
