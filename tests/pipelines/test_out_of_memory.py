"""Out of memory in a run: stopped at the cap with a ledger, nothing published, and never tried again."""

from __future__ import annotations

import ast
import inspect
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
from dagster._daemon.auto_run_reexecution.auto_run_reexecution import filter_runs_to_should_retry

from assets.adaptation import _step_ledger
from assets.lineage import Lab, lineage_asset
from curriculum.hardware import resident_bytes
from curriculum.limits import GIB
from resources.build import build_resources
from tests.adaptation.tiny_llama import save_tiny

if TYPE_CHECKING:
    import pandas as pd

    from curriculum.artifacts import ModelArtifact

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
RETRIES = dg.RetryPolicy(max_retries=2)
state: dict[str, Any] = {}


@lineage_asset(group="test")
def table(lab: Lab) -> pd.DataFrame:
    """An input of a known size."""
    import numpy as np
    import pandas as pd

    return pd.DataFrame({"value": np.zeros(2**18)})


def _model(lab: Lab, table: pd.DataFrame) -> ModelArtifact:
    """Writes half of a model, and fails as it is told to."""
    state["attempts"] += 1
    (lab.out / "half.bin").write_bytes(b"half")
    state["staged"] = lab.out
    state["fail"](lab)
    raise AssertionError("unreachable")


model = lineage_asset(group="test", settings="adapter", name="model")(_model)
adapter = lineage_asset(group="test", settings="adapter", name="adapter", ledger=_step_ledger)(_model)


def grow(lab: Lab) -> None:
    held = []
    for _ in range(200):  # 4 GiB if nothing stops it
        held.append(bytearray(b"x") * (20 * 2**20))
        time.sleep(0.02)


def raises(error: BaseException) -> Any:
    def fail(lab: Lab) -> None:
        raise error

    return fail


def run(folder: Path, fail: Any, asset: dg.AssetsDefinition = model, *, instance: dg.DagsterInstance, cap: float = 6.0, **changed: Any) -> Any:
    state.update(fail=fail, attempts=0)
    overrides = {"compute": {"memory_cap_gb": cap}, **changed}
    resources = build_resources("starter", folder, journal=False, overrides=overrides)
    job = dg.Definitions(assets=[table, asset], jobs=[dg.define_asset_job("job", op_retry_policy=RETRIES)], resources=resources)
    return job.resolve_job_def("job").execute_in_process(
        instance=instance, run_config=QUIET, raise_on_error=False, tags={"dagster/max_retries": "3"}
    )


def failure(result: Any) -> tuple[Any, str]:
    (event,) = [e for e in result.all_events if e.event_type_value == "STEP_FAILURE"]
    return event.event_specific_data, event.event_specific_data.error_display_string


def test_the_cap_stops_a_step_with_a_message_and_publishes_nothing(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = run(tmp_path, grow, instance=instance, cap=resident_bytes() / GIB + 0.3)
    data, text = failure(result)
    assert not result.success and state["attempts"] == 1
    assert "'model' ran out of memory: memory " in text and "GiB is above compute.memory_cap_gb=" in text
    assert "By its inputs: table 2 MiB" in text and "in the profile's section adapter" in text
    assert data.user_failure_data.metadata["ledger_mib"].value == {"table": 2.0}
    store = build_resources("starter", tmp_path, journal=False)["artifacts"].store()
    assert store.manifest("model") is None and not state["staged"].exists() and store.manifest("table") is not None


def test_an_adapter_says_its_ledger(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "llama")
    with dg.DagsterInstance.ephemeral() as instance:
        result = run(tmp_path, raises(MemoryError()), adapter, instance=instance, adapter={"base": f"path:{base}"})
    text = failure(result)[1]
    assert "ran out of memory: MemoryError. By its ledger: " in text
    assert all(part in text for part in ("weights, NF4 codes", "gradients", "optimizer", "activations"))


def errors() -> list[tuple[BaseException, int]]:
    import torch

    return [(ValueError("an ordinary one"), 3), (RuntimeError("size mismatch"), 3), (MemoryError(), 1), (torch.OutOfMemoryError("CUDA"), 1)]


@pytest.mark.parametrize(("error", "attempts"), errors(), ids=lambda value: type(value).__name__)
def test_out_of_memory_is_never_retried_and_an_ordinary_error_is(tmp_path: Path, error: BaseException, attempts: int) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = run(tmp_path, raises(error), instance=instance)
        assert not result.success and state["attempts"] == attempts
        run_again = list(filter_runs_to_should_retry([instance.get_run_by_id(result.run_id)], instance))
        assert len(run_again) == (0 if attempts == 1 else 1)  # what the daemon would start again


def test_every_asset_that_computes_on_the_device_is_in_the_pool() -> None:
    from pipelines.definitions import ASSET_MODULES, defs

    pools = {node.key.to_user_string(): node.pools for node in defs.resolve_asset_graph().asset_nodes}
    using = set()
    for module in ASSET_MODULES:
        functions = {f.name: f for f in ast.parse(inspect.getsource(module)).body if isinstance(f, ast.FunctionDef)}
        used = {name: {n.attr for n in ast.walk(f) if isinstance(n, ast.Attribute)} for name, f in functions.items()}
        helpers = {name for name in functions if name.startswith("_") and used[name] & {"device", "generator"}}
        called = {name: {n.id for n in ast.walk(f) if isinstance(n, ast.Name)} for name, f in functions.items()}
        using |= {name for name in functions if name in pools and (used[name] & {"device", "generator"} or called[name] & helpers)}
    assert len(using) >= 15
    assert {name for name in using if pools[name] != {"gpu"}} == set()
