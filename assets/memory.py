"""What an asset says when memory has run out: what it held, what to lower, and that another attempt would need as much."""

from pathlib import Path
from typing import Any, NoReturn

import dagster as dg

from curriculum.errors import MemoryLimitError

Item = tuple[str, int]  # what is in memory, and its bytes
_MIB = 2**20
# the orchestrator retries a failed run, where that is switched on, unless the run says that a failed step is no reason to
_NO_RUN_RETRY = {"dagster/retry_on_asset_or_op_failure": "false"}


def never_retried(
    context: dg.AssetExecutionContext,
    asset: str,
    error: BaseException,
    ledger: list[Item] | None,
    inputs: dict[str, Any],
    sections: tuple[str, ...],
) -> NoReturn:
    """Fail the step for good: neither a retry policy of the asset nor one of the run tries it again.

    Raises:
        dagster.Failure: always. Its message has the error, the ledger (or, without one, the sizes of the inputs) and the settings.
    """
    compute = context.resources.compute
    known, what = (ledger, "its ledger") if ledger else (_sizes(inputs), "its inputs")
    shown = sorted((item for item in known if item[1]), key=lambda item: -item[1])
    text = f"'{asset}' ran out of memory: {str(error) or type(error).__name__}."
    if shown:
        text += f" By {what}: {', '.join(f'{part} {size / _MIB:,.0f} MiB' for part, size in shown)}."
    text += f" Its settings are in the profile's section {' and '.join(sections)}." if sections else ""
    context.instance.add_run_tags(context.run_id, _NO_RUN_RETRY)
    metadata = {"memory_cap_gb": float(compute.memory_cap_gb), "ledger_mib": {part: round(size / _MIB, 1) for part, size in shown}}
    raise dg.Failure(text, metadata=metadata, allow_retries=False) from MemoryLimitError(text).with_traceback(error.__traceback__)


def _sizes(inputs: dict[str, Any]) -> list[Item]:
    """Bytes of each input: of a table in memory, of an artifact on disk."""
    found = []
    for name, value in inputs.items():
        if hasattr(value, "memory_usage"):
            found.append((name, int(value.memory_usage(deep=True).sum())))
        elif isinstance(getattr(value, "path", None), Path):
            found.append((name, sum(p.stat().st_size for p in value.path.rglob("*") if p.is_file())))
    return found
