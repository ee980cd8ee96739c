"""A connection to a Ray cluster: the one that is named, or one that is started on this machine and ended with the block."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from curriculum.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".tools" / "ray"  # where `make ray` puts it: apart from the environment, none of whose other parts need it
STORE_BYTES = 256 * 2**20  # of a cluster that is started here: texts and vectors in flight; the model comes on top


def load_ray() -> Any:
    """The module ``ray``.

    Raises:
        UserError: it is not installed.
    """
    if importlib.util.find_spec("ray") is None and (TOOLS / "ray").is_dir():
        sys.path.append(str(TOOLS))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else it reports to its makers, and asks first
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise UserError(
            "compute.engine is 'ray' and ray cannot be imported: install the cluster extra by `make ray`, or set compute.engine: local "
            f"({error})"
        ) from error


@contextlib.contextmanager
def ray_session(address: str, progress: Callable[[str], None], *, model_bytes: int = 0) -> Iterator[Any]:
    """The module ``ray``, connected to ``address``, else to RAY_ADDRESS, else to a cluster of this machine alone that ends with the block.

    A connection that the process has already is used, and left as it is.

    Raises:
        UserError: ray is not installed, or no cluster answers at the address.
    """
    ray = load_ray()
    if ray.is_initialized():
        yield ray
        return
    named = address or os.environ.get("RAY_ADDRESS", "")
    here: dict[str, Any] = {"include_dashboard": False, "object_store_memory": STORE_BYTES + 2 * model_bytes, "_node_ip_address": "127.0.0.1"}
    with _signals_kept(), workers_path():
        try:
            ray.init(address=named or "local", log_to_driver=False, logging_level=logging.ERROR, **({} if named else here))
        except (ConnectionError, ValueError) as error:
            raise UserError(f"no Ray cluster answers at {named or 'this machine'}; set compute.ray_address or RAY_ADDRESS ({error})") from error
        try:
            found = ray.cluster_resources()
            progress(f"ray {ray.__version__} at {named or 'a cluster of this machine'}: {found.get('CPU', 0):g} CPUs, {found.get('GPU', 0):g} GPUs")
            yield ray
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray puts a handler of its own on SIGTERM, over the orchestrator's, and leaves it there."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


@contextlib.contextmanager
def workers_path() -> Iterator[None]:
    """Processes that a local cluster starts find this project and ray where this one does."""
    before = os.environ.get("PYTHONPATH")
    parts = [str(ROOT), *([str(TOOLS)] if str(TOOLS) in sys.path else []), *([before] if before else [])]
    os.environ["PYTHONPATH"] = os.pathsep.join(parts)
    try:
        yield
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before
