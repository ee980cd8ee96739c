"""What a test of one asset needs of the lineage around it: its inputs as they are given, and the checks of its claims."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

import dagster as dg
import pandas as pd

from assets.lineage import Lab, lineage_asset
from curriculum.profile import load_profile
from curriculum.syllabus import load_syllabus
from pipelines.guardrails import bar_checks


def given(inputs: Mapping[str, Any]) -> list[dg.AssetsDefinition]:
    """Assets of these names that hold these tables and artifacts."""

    def define(name: str, value: Any) -> dg.AssetsDefinition:
        def body(lab: Lab) -> Any:
            if isinstance(value, pd.DataFrame):
                return value
            shutil.copytree(value.path, lab.out, dirs_exist_ok=True)
            return type(value)(lab.out, value.facts)

        return lineage_asset(group="test", name=name)(body)

    return [define(name, value) for name, value in inputs.items()]


def claims_on(asset: str) -> list[dg.AssetChecksDefinition]:
    """The checks of the syllabus's claims on ``asset`` under the starter profile."""
    return [c for c in bar_checks(load_syllabus(), load_profile("starter")) if f"claim_{asset}_" in str(list(c.check_keys))]


def held(done: dg.ExecuteInProcessResult, asset: str) -> dict[str, bool]:
    """Which of the claims on ``asset`` held in a run, by metric."""
    prefix = f"claim_{asset}_"
    return {e.check_name.removeprefix(prefix): e.passed for e in done.get_asset_check_evaluations() if e.check_name.startswith(prefix)}
