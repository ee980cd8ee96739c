"""The peak memory of one training step of a method, in a process of its own: ``python -m curriculum.tuning.meter < request``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from curriculum.adaptation.meter import DeviceMeter, ProcessMeter, meter_of, run_meter
from curriculum.tuning.settings import Method, TuningSettings


class PeakRequest(BaseModel):
    """Whose step to measure: a folder of a causal language model, the method, and its settings."""

    model_config = ConfigDict(extra="forbid")

    folder: str
    method: Method
    settings: TuningSettings
    device: str
    precision: str
    threads: int


class PeakReading(BaseModel):
    """Bytes: ``before`` the model, ``step_peak`` above that in a step, ``whole_peak`` of all the process (CPU) or all allocated (GPU)."""

    model_config = ConfigDict(extra="forbid")

    before: int
    step_peak: int
    whole_peak: int


def measure_peak(request: PeakRequest) -> PeakReading:
    """Two steps of the generation task in a fresh process: the first makes gradients and moments, the second is measured.

    Raises:
        UserError: the process failed; its last lines are in the message.
    """
    return PeakReading.model_validate_json(run_meter("curriculum.tuning.meter", request, request.threads))


def read(request: PeakRequest) -> PeakReading:
    """Measure in this process; :func:`measure_peak` is what to call."""
    import torch

    torch.set_num_threads(request.threads)
    _warm_up(request)
    meter = meter_of(request.device)
    before = meter.now()
    load_peak = _two_steps(request, Path(request.folder), meter)
    peak = meter.peak()
    return PeakReading(before=before, step_peak=peak - before, whole_peak=max(load_peak, peak))


def _two_steps(request: PeakRequest, folder: Path, meter: DeviceMeter | ProcessMeter) -> int:
    """Load, attach, one step, and a second one after the meter was reset; returns the peak before the second."""
    import torch

    from curriculum.adaptation.model import trainable
    from curriculum.tuning.methods import attach, load_frozen
    from curriculum.tuning.training import Setting, block_loss, fit

    settings, device = request.settings, request.device
    model = load_frozen(folder, "generation", request.method, device=device, precision=request.precision)
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randint(model.config.vocab_size, (settings.batch_size, settings.block_size + 1), generator=generator).to(device)
    tuned = attach(model, request.method, "generation", settings, seed=0)
    peaks = []

    def loss_at(step: int) -> torch.Tensor:
        if step == 1:
            peaks.append(meter.peak())
            meter.reset()
        return block_loss(tuned, blocks).mean()

    groups = [{"params": list(trainable(tuned).values()), "peak": 1e-6}]
    fit(tuned, groups, loss_at, Setting(request.method, settings, device, request.precision), 2)
    return peaks[0]


def _warm_up(request: PeakRequest) -> None:
    """Two steps of a tiny model: what the libraries import and allocate on first use is not the model's memory."""
    import tempfile

    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"vocab_size": 256, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2}
    settings = request.settings.model_copy(update={"batch_size": 1, "block_size": 8})
    with tempfile.TemporaryDirectory() as folder:
        LlamaForCausalLM(LlamaConfig(**shape)).save_pretrained(folder)
        _two_steps(request.model_copy(update={"settings": settings}), Path(folder), meter_of(request.device))


if __name__ == "__main__":
    print(json.dumps(read(PeakRequest.model_validate_json(sys.stdin.read())).model_dump()))
