"""Whether an adapter that is merged and exported is still the model that was trained: logits, tensors, tokens and perplexity, one step at a time."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel

from curriculum.adaptation.gguf import dequantise_gguf
from curriculum.adaptation.gguf_writer import write_gguf
from curriculum.adaptation.lora import LoraLinear
from curriculum.adaptation.merging import adapter_updates, merge, plain_copy
from curriculum.adaptation.model import block_losses, load_adapter, load_base, load_tokenizer
from curriculum.adaptation.settings import AdapterSettings
from curriculum.adaptation.text import token_blocks
from curriculum.artifacts import ModelArtifact
from curriculum.evaluation.statistics import paired_bootstrap
from curriculum.plots import draw
from curriculum.results import Identity, Metric, StudyResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PROBED = 2  # blocks whose next-token distributions are compared entry by entry: 128 positions of 49,152 entries
BLOCK, BLOCKS = 64, 16
REMARKS = [
    "A difference is the largest change of the log-probability of any entry of the vocabulary at any probed position, in nats; two runs of "
    "one float32 model on differently ordered sums differ by some 1e-5. A changed tensor is one with a single bit that is not the same.",
    "quantised_difference: the NF4 base with the adapter beside it, against the same values de-quantised once, adapter still beside it. "
    "merge_difference: that against the merged file, read again. From there on nothing is computed, only stored: safetensors, GGUF.",
    "The merged weights are those of the de-quantised base, which the adapter was trained over. merged_into_original puts the adapter into the "
    "weights that were never rounded, and quantised_again rounds the merged ones to NF4: both are other models, and the table says by how much.",
    "F16 rounds every matrix to 11 significant bits, so its GGUF is held to the perplexity and not to the logits.",
]


@dataclass
class Outputs:
    """What a model says of the probe: log-probabilities [positions, vocabulary] of the first blocks, nats a token [blocks] of all."""

    log_probabilities: torch.Tensor
    losses: torch.Tensor

    def difference(self, other: Outputs) -> float:
        """The largest change of a log-probability, in nats."""
        return float((self.log_probabilities - other.log_probabilities).abs().max())


@dataclass
class _Bench:
    """The probe, and what every way of running the adapted model made of it."""

    blocks: torch.Tensor
    chunk: int
    device: str
    progress: Callable[[str], None]
    outputs: dict[str, Outputs] = field(default_factory=dict)
    rows: list[dict[str, object]] = field(default_factory=list)

    def probe(self, name: str, model: nn.Module, bytes_: float) -> None:
        """Run ``model``, which takes ``bytes_`` on disk."""
        begun = time.perf_counter()
        self.outputs[name] = outputs_of(model, self.blocks, chunk=self.chunk, device=self.device)
        loss = float(self.outputs[name].losses.mean())
        self.rows.append({"way": name, "perplexity": math.exp(loss), "megabytes": bytes_ / 1e6, "seconds": time.perf_counter() - begun})
        self.progress(f"{name}: perplexity {math.exp(loss):.3f}")


@torch.no_grad()
def outputs_of(model: nn.Module, blocks: torch.Tensor, *, chunk: int, device: str) -> Outputs:
    """``model`` on ``blocks`` int64 [n, block + 1], in evaluation mode."""
    model.eval()
    logits_PBV = model(input_ids=blocks[:PROBED, :-1].to(device), use_cache=False).logits.float()
    return Outputs(logits_PBV.log_softmax(-1).flatten(0, 1).cpu(), block_losses(model, blocks, chunk=chunk, device=device))


def export_study(
    adapter: ModelArtifact, merged: ModelArtifact, texts: Sequence[str], settings: AdapterSettings, *, folder: Path, base: Identity,
    device: str, precision: str, seed: int, progress: Callable[[str], None],
) -> StudyResult:  # fmt: skip
    """The adapted model in seven forms on held-out ``texts``, each against the one it was made from; in five where no GGUF can be written.

    Raises:
        DataError: the texts do not fill the probe. UserError: the adapter is of another base.
    """
    blocks = token_blocks(load_tokenizer(folder), texts, BLOCK, limit=BLOCKS)
    bench = _Bench(blocks, settings.logit_chunk, device, progress)
    places = {"device": device, "precision": precision}
    plain, updates, scratch = _unmerged(bench, adapter, settings, folder, base, places)
    bench.probe("merged", _load(merged.path, "none", places), _size(merged.path))
    merge(plain, updates)
    metrics = [Metric(name="scratch_difference", value=scratch, n=len(updates), higher_is_better=False)]
    metrics += [_changed("safetensors_changed", plain, _load(merged.path, "none", {"device": "cpu", "precision": precision}))]
    del plain
    metrics += _through_gguf(bench, merged.path, list(texts), places) if merged.facts["gguf"] else []
    original = _load(folder, "none", places)
    merge(original, updates)
    bench.probe("merged_into_original", original, _size(folder))
    del original
    bench.probe("quantised_again", _load(merged.path, "nf4", places), math.nan)  # it is never written
    return StudyResult(
        study="adapter_export", settings={"block": BLOCK, "blocks": BLOCKS, "probed": PROBED} | settings.model_dump(mode="json"),
        identities=[base], seeds=[seed], remarks=REMARKS, metrics=[*_differences(bench, seed), *metrics],
        per_example=_per_example(bench), tables={"ways": _table(bench)}, plots={"ways": _plot(bench)},
    )  # fmt: skip


def _unmerged(
    bench: _Bench, adapter: ModelArtifact, settings: AdapterSettings, folder: Path, base: Identity, places: dict[str, str]
) -> tuple[PreTrainedModel, dict[str, torch.Tensor], float]:
    """The base as trained over and its de-quantised copy, each with the adapter beside it; returns the copy alone and the updates."""
    size = _size(adapter.path)
    quantised = load_base(folder, settings, **places)
    plain = plain_copy(quantised)
    bench.probe("unmerged_nf4", load_adapter(quantised, adapter.path, base), size)
    del quantised
    beside = load_adapter(plain.to(places["device"]), adapter.path, base)
    bench.probe("unmerged_dequantised", beside, size)
    updates, scratch = adapter_updates(beside), scratch_difference(beside)
    return beside.unload().cpu(), updates, scratch


@torch.no_grad()
def scratch_difference(adapted: PeftModel, *, rows: int = 16) -> float:
    """The largest difference between an adapted layer's output and :class:`LoraLinear`'s from the same weights, over the largest output."""
    worst, generator = 0.0, torch.Generator().manual_seed(0)
    for part in adapted.modules():
        if not isinstance(part, LoraLayer):
            continue
        (active,) = part.active_adapters
        a, b = part.lora_A[active].weight, part.lora_B[active].weight
        ours = LoraLinear(part.get_base_layer(), len(a), part.scaling[active] * len(a))
        ours.a.copy_(a), ours.b.copy_(b)
        x = torch.randn(rows, a.shape[1], generator=generator).to(a.device, a.dtype)
        theirs = part(x)
        worst = max(worst, float((ours(x) - theirs).abs().max() / theirs.abs().max()))
    return worst


def _through_gguf(bench: _Bench, merged: Path, texts: list[str], places: dict[str, str]) -> list[Metric]:
    """Write the merged folder as GGUF in both types, let transformers read each, and compare weights and tokens."""
    ours, metrics = load_tokenizer(merged), []
    for kind in ("F32", "F16"):
        with tempfile.TemporaryDirectory(prefix="gguf-") as work:
            file = write_gguf(merged, Path(work) / f"model.{kind.lower()}.gguf", kind)
            size = file.stat().st_size
            back = dequantise_gguf(file, Path(work) / "read")
            model = _load(back, "none", places)
            bench.probe(f"gguf_{kind.lower()}", model, size)
            if kind == "F32":
                metrics.append(_changed("gguf_f32_changed", model.cpu(), _load(merged, "none", {"device": "cpu", "precision": places["precision"]})))
                theirs = load_tokenizer(back)
                wrong = sum(ours.encode(text) != theirs.encode(text) for text in texts)
                metrics.append(Metric(name="gguf_token_mismatches", value=wrong, n=len(texts), higher_is_better=False))
    return metrics


def _changed(name: str, one: nn.Module, other: nn.Module) -> Metric:
    """How many tensors of two models are not the same to the last bit, those counted that only one has."""
    left, right = one.state_dict(), other.state_dict()
    wrong = len(left.keys() ^ right.keys()) + sum(not torch.equal(left[key], right[key]) for key in left.keys() & right.keys())
    return Metric(name=name, value=wrong, n=len(left), higher_is_better=False)


def _load(folder: Path, quantisation: str, places: dict[str, str]) -> PreTrainedModel:
    return load_base(folder, AdapterSettings(quantisation=quantisation), **places)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _differences(bench: _Bench, seed: int) -> list[Metric]:
    """Logits where nothing may have changed, perplexity where something was rounded."""
    out, metrics = bench.outputs, []
    same = {
        "quantised_difference": ("unmerged_dequantised", "unmerged_nf4"), "merge_difference": ("merged", "unmerged_dequantised"),
        "gguf_f32_difference": ("gguf_f32", "merged"), "gguf_f16_difference": ("gguf_f16", "merged"),
    }  # fmt: skip
    for name, (new, old) in ((name, pair) for name, pair in same.items() if pair[0] in out):
        positions = out[new].log_probabilities.shape[0]
        metrics.append(Metric(name=name, value=out[new].difference(out[old]), n=positions, unit="nats", higher_is_better=False))
    for name in (name for name in ("merged", "gguf_f16", "merged_into_original", "quantised_again") if name in out):
        old = "unmerged_nf4" if name == "merged" else "merged"
        found = paired_bootstrap(out[name].losses.numpy(), out[old].losses.numpy(), seed=seed)
        low, high = math.expm1(found.low), math.expm1(found.high)
        value = math.expm1(found.difference)
        metrics.append(Metric(name=f"perplexity_change__{name}", value=value, low=low, high=high, n=found.n, higher_is_better=False))
    return metrics


def _per_example(bench: _Bench) -> pd.DataFrame:
    """A row a block: nats a token of every way."""
    names = [f"block-{i:03d}" for i in range(len(bench.blocks))]
    return pd.DataFrame({"example_id": names, **{name: out.losses.numpy() for name, out in bench.outputs.items()}})


def _table(bench: _Bench) -> pd.DataFrame:
    reference = bench.outputs["merged"]
    extra = {name: out.difference(reference) for name, out in bench.outputs.items()}
    return pd.DataFrame([{**row, "largest_change_from_merged": extra[str(row["way"])]} for row in bench.rows])


def _plot(bench: _Bench) -> bytes:
    table = _table(bench)

    def paint(axes: Axes) -> None:
        shown = table[table["way"] != "merged"][::-1]
        axes.barh(shown["way"], shown["largest_change_from_merged"].clip(lower=1e-9))
        axes.set_xscale("log")

    return draw(paint, title="Largest change of a log-probability from merged", x="nats", size=(6.4, 3.2))
