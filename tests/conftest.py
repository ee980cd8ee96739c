"""Fixtures every area shares: resources over a temporary folder, one thread, no network."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", RAGAS_DO_NOT_TRACK="true", TOKENIZERS_PARALLELISM="false")


@pytest.fixture
def resources(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """``resources(reader={...}, ...)``: every resource of the starter profile over ``tmp_path``, sections overridden."""
    from resources.build import build_resources

    def build(**overrides: Any) -> dict[str, Any]:
        return build_resources("starter", tmp_path, overrides=overrides, journal=False)

    return build
