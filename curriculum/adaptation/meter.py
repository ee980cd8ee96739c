"""The peak memory of one QLoRA step, measured in a process of its own: ``python -m curriculum.adaptation.meter < request``.

A fresh process, because a meter over resident memory counts whatever its process did before. glibc is told to give every
large block straight back to the kernel, so that resident memory follows the live tensors.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from curriculum.adaptation.settings import AdapterSettings
from curriculum.errors import UserError

_ROOT = Path(__file__).resolve().parents[2]
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


class MeterRequest(BaseModel):
    """What to measure: a model folder and the settings of the step."""

    model_config = ConfigDict(extra="forbid")

    folder: str
    settings: AdapterSettings
    device: str
    precision: str
    threads: int


class MeterReading(BaseModel):
    """Bytes. ``loaded``, ``adapted``, ``stepped`` (after a step: what stays of it) and ``step_peak`` are above what the process held
    before the model; the others are all of the process (CPU) or all that was allocated (GPU)."""

    model_config = ConfigDict(extra="forbid")

    before: int
    loaded: int
    adapted: int
    stepped: int
    step_peak: int
    whole_peak: int
    seconds_a_step: float


def measure_step(request: MeterRequest, *, timeout: float = 1800) -> MeterReading:
    """Run one short warm-up step and one measured step in a fresh process.

    Raises:
        UserError: the process failed; its last lines are in the message.
    """
    return MeterReading.model_validate_json(run_meter("curriculum.adaptation.meter", request, request.threads, timeout=timeout))


def run_meter(module: str, request: BaseModel, threads: int, *, timeout: float = 1800) -> str:
    """The last line that ``python -m module`` prints in a fresh process that is given ``request``.

    Raises:
        UserError: the process failed; its last lines are in the message.
    """
    done = subprocess.run(
        [sys.executable, "-m", module], input=request.model_dump_json(), capture_output=True, text=True, cwd=_ROOT,
        env={**os.environ, **_ALLOCATOR, "OMP_NUM_THREADS": str(threads)}, timeout=timeout, check=False,
    )
    if done.returncode != 0:
        raise UserError("the memory of a training step could not be measured:\n" + "\n".join(done.stderr.splitlines()[-8:]))
    return done.stdout.splitlines()[-1]


def read(request: MeterRequest) -> MeterReading:
    """Measure in this process; :func:`measure_step` is what to call."""
    import time

    import torch

    from curriculum.adaptation.model import add_adapter, load_base, trainable
    from curriculum.adaptation.training import build_optimizer, train_step

    settings, device = request.settings, request.device
    torch.set_num_threads(request.threads)
    _warm_up(request)
    meter = meter_of(device)
    before = meter.now()
    model = load_base(Path(request.folder), settings, device=device, precision=request.precision)
    loaded = meter.now()
    adapted = add_adapter(model, settings, seed=0)
    with_adapter = meter.now()
    optimizer = build_optimizer(list(trainable(adapted).values()), settings, device)
    generator = torch.Generator().manual_seed(0)
    size = (settings.batch_size * min(settings.accumulation, 2), settings.block_size + 1)
    blocks = torch.randint(model.config.vocab_size, size, generator=generator).to(device)
    train_step(adapted, optimizer, blocks[:, :17], settings, device=device, precision=request.precision)  # gradients, moments
    load_peak, stepped = meter.peak(), meter.now()
    meter.reset()
    start = time.perf_counter()
    train_step(adapted, optimizer, blocks, settings, device=device, precision=request.precision)
    seconds, peak = time.perf_counter() - start, meter.peak()
    return MeterReading(
        before=before, loaded=loaded - before, adapted=with_adapter - before, stepped=stepped - before,
        step_peak=peak - before, whole_peak=max(load_peak, peak), seconds_a_step=seconds,
    )


def _warm_up(request: MeterRequest) -> None:
    """One step of a tiny model: what the libraries import and allocate on first use is not the model's memory."""
    import tempfile

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from curriculum.adaptation.model import add_adapter, load_base, trainable
    from curriculum.adaptation.training import build_optimizer, train_step

    settings, device = request.settings, request.device
    config = LlamaConfig(vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2)
    names = tuple(name for name in settings.target_modules if name.endswith("_proj")) or ("q_proj",)
    tiny = settings.model_copy(update={"target_modules": names})
    with tempfile.TemporaryDirectory() as folder:
        LlamaForCausalLM(config).save_pretrained(folder)
        model = add_adapter(load_base(Path(folder), tiny, device=device, precision=request.precision), tiny, seed=0)
    optimizer = build_optimizer(list(trainable(model).values()), tiny, device)
    train_step(model, optimizer, torch.ones((1, 17), dtype=torch.long, device=device), tiny, device=device, precision=request.precision)


def meter_of(device: str) -> DeviceMeter | ProcessMeter:
    """The meter of what a device's tensors occupy."""
    return DeviceMeter(device) if device.startswith("cuda") else ProcessMeter()


class ProcessMeter:
    """Resident memory of this process, from the kernel."""

    def now(self) -> int:
        import gc

        gc.collect()
        statm = Path("/proc/self/statm")
        if not statm.exists():  # no present figure outside Linux: the peak so far stands for it
            return self.peak()
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def peak(self) -> int:
        from curriculum.hardware import peak_resident_bytes

        return peak_resident_bytes()

    def reset(self) -> None:
        from curriculum.hardware import reset_peak

        if not reset_peak():
            print("the peak meter cannot be reset here: the reading includes loading the model", file=sys.stderr)


class DeviceMeter:
    """Memory that torch has allocated on a GPU."""

    def __init__(self, device: str) -> None:
        self.device = device

    def now(self) -> int:
        import torch

        return torch.cuda.memory_allocated(self.device)

    def peak(self) -> int:
        import torch

        return torch.cuda.max_memory_allocated(self.device)

    def reset(self) -> None:
        import torch

        torch.cuda.reset_peak_memory_stats(self.device)


if __name__ == "__main__":
    print(json.dumps(read(MeterRequest.model_validate_json(sys.stdin.read())).model_dump()))
