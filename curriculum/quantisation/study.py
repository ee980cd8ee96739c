"""One language model in every format: bytes, tokens a second and perplexity on the same held-out blocks.

Beside it: integers from scratch against the libraries', and the F1 of the reader in each format too.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from transformers import AutoModelForQuestionAnswering

from curriculum.adaptation.gguf import find_packaged_gguf
from curriculum.adaptation.model import block_losses, load_tokenizer
from curriculum.adaptation.text import token_blocks
from curriculum.artifacts import ModelArtifact
from curriculum.cells import Cells
from curriculum.errors import DataError
from curriculum.evaluation.statistics import bootstrap_mean, paired_bootstrap
from curriculum.plots import draw
from curriculum.quantisation.formats import FORMATS, in_format, weight_bytes
from curriculum.quantisation.llamacpp import LlamaCpp
from curriculum.quantisation.parity import SCHEMES, compare_codes, drawn_weights
from curriculum.quantisation.settings import QuantisationSettings
from curriculum.reading.fitting import scores
from curriculum.reading.reader import Reader
from curriculum.results import Identity, Metric, StudyResult
from curriculum.sources import dataset_folder
from curriculum.storage import file_sha256

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REMARKS = [
    "The linear layers of the blocks are in the format. The embedding, which is also the output layer of a tied model, stays in the precision "
    "beside them (float32 but for bf16); llama.cpp's file has it quantised too.",
    "packaged:smollm2 is itself a file in Q4_1: its fp32 is that file decoded, so the gguf row has the same weights as the fp32 row, rounds only "
    "the activations, and no row says what Q4_1 cost. Weights that lie on another grid are also an easier or harder case than trained ones: "
    "what a scheme costs on weights never rounded is in the table of codes (normal, outliers).",
    "int8_dynamic has one scale for a whole input tensor, so that an outlier feature takes the resolution of all; int8_bnb keeps such columns "
    "apart, in 16 bits.",
    "Speeds are of one sequence, on this processor, in rounds in which every format takes its turn; transformers' by the wall clock of a forward "
    "pass and of a loop of them, llama.cpp's by its own clock. low and high are the middle half of the rounds.",
    "The reader has its blocks' linear layers in the format, its output layer in float32 (bf16: in that); llama.cpp has no head that marks an "
    "answer, so there is no F1 in its format.",
    "A perplexity's interval is over blocks; perplexity_change is against fp32 on the same blocks, paired.",
]


@dataclass(frozen=True)
class Held:
    """What every format is measured on: the model's folder and GGUF file (or None), and the held-out blocks [n, block + 1]."""

    folder: Path
    gguf: Path | None
    blocks_NL: Tensor

    @property
    def formats(self) -> list[str]:
        return [*FORMATS, *(["gguf"] if self.gguf else [])]

    def llama_cpp(self, context: int) -> LlamaCpp:
        assert self.gguf is not None, "asked for only where there is a file"
        return LlamaCpp(self.gguf, threads=torch.get_num_threads(), context=context)


def quantisation_study(
    texts: Sequence[str], reader: ModelArtifact, examples: pd.DataFrame, settings: QuantisationSettings, *, folder: Path,
    identities: list[Identity], seed: int, cells: Cells, progress: Callable[[str], None],
) -> StudyResult:  # fmt: skip
    """Measure the model in ``folder`` on held-out ``texts``, and ``reader`` on the test split of ``examples``; a killed run goes on.

    Raises:
        DataError: the texts do not fill ``settings.blocks`` blocks. UserError: the GGUF file is not to be had or not read.
    """
    blocks = token_blocks(load_tokenizer(folder), texts, settings.block_size, limit=settings.blocks)
    if len(blocks) < settings.blocks:
        raise DataError(f"the held-out text fills {len(blocks)} blocks of {settings.block_size} tokens; lower quantisation.blocks to that")
    held = Held(folder, gguf_file(settings.gguf), blocks)
    known = [settings.model_dump(mode="json"), seed, blocks.tolist(), [i.digest for i in identities], held.gguf and file_sha256(held.gguf)]
    parity = pd.DataFrame(cells.get("codes", known, lambda: {"rows": codes_of(folder, seed).to_dict("records")})["rows"])
    quality = {}
    for name in held.formats:
        quality[name] = cells.get(f"quality of {name}", known, lambda name=name: quality_of(held, name))
        progress(f"{name}: {quality[name]['bytes'] / 1e6:.0f} MB, perplexity {math.exp(np.mean(quality[name]['nats'])):.2f}")
    speed = cells.get("speed", [*known, torch.get_num_threads()], lambda: speed_of(held, settings, progress))
    test = examples[examples["split"] == "test"]
    asked = [*known, test["example_id"].tolist(), reader.facts]
    read = {name: cells.get(f"reader in {name}", asked, lambda name=name: reader_of(reader, test, name)) for name in FORMATS}
    return StudyResult(
        study="quantisation_study",
        metrics=[*_code_metrics(parity), *_format_metrics(quality, speed, seed), *_reader_metrics(read, seed)],
        settings=settings.model_dump(mode="json"), identities=identities, seeds=[seed], remarks=REMARKS,
        per_example=_per_example(quality), tables={"formats": formats_table(quality, speed, read), "codes": parity},
        plots=_plots(quality, speed, read),
    )  # fmt: skip


def gguf_file(uri: str) -> Path | None:
    """The file of ``quantisation.gguf``; None where it is empty.

    Raises:
        SourceError: there is no such file.
    """
    if not uri:
        return None
    return find_packaged_gguf() if uri == "packaged:smollm2" else dataset_folder(uri)


def codes_of(folder: Path, seed: int) -> pd.DataFrame:
    """The comparison of codes on drawn weights and on the model's own first block."""
    model = in_format("fp32", folder)
    linear = {name: part.weight.detach() for name, part in model.named_modules() if isinstance(part, nn.Linear) and ".0." in name}
    return compare_codes({**drawn_weights(seed), **linear})


@torch.no_grad()
def quality_of(held: Held, name: str) -> dict[str, Any]:
    """Bytes of the weights, and mean nats a token of every block."""
    if name == "gguf":
        llama, blocks = held.llama_cpp(held.blocks_NL.shape[1]), held.blocks_NL.tolist()
        return {"bytes": held.gguf.stat().st_size, "nats": [float(np.mean(llama.nats(block))) for block in blocks]}
    model = in_format(name, held.folder)
    size = weight_bytes(model)  # before the first product, at which some processors' kernels pack the weights anew
    return {"bytes": size, "nats": block_losses(model, held.blocks_NL, chunk=128).tolist()}


@torch.inference_mode()
def speed_of(held: Held, settings: QuantisationSettings, progress: Callable[[str], None]) -> dict[str, Any]:
    """Tokens a second of prefill and of decoding, a round each, all formats in memory at once and taken in turn."""
    ids = held.blocks_NL.flatten()[: settings.prompt_tokens].tolist()
    models = {name: in_format(name, held.folder) for name in FORMATS}
    rates: dict[str, Callable[[], tuple[float, float]]] = {
        name: lambda model=model: transformers_speed(model, ids, settings.new_tokens) for name, model in models.items()
    }
    if held.gguf:
        llama = held.llama_cpp(len(ids) + settings.new_tokens + 1)
        rates["gguf"] = lambda: llama.speed(ids, settings.new_tokens)
    found: dict[str, dict[str, list[float]]] = {name: {"prefill": [], "decode": []} for name in rates}
    for number in range(settings.rounds + 1):
        for name, rate in rates.items():
            prefill, decode = rate()
            if number:  # the first round packs weights and grows tables
                found[name]["prefill"].append(prefill)
                found[name]["decode"].append(decode)
    progress("decoding, tokens a second: " + ", ".join(f"{name} {statistics.median(rate['decode']):.0f}" for name, rate in found.items()))
    return found


def transformers_speed(model: Any, ids: Sequence[int], new_tokens: int) -> tuple[float, float]:
    """Tokens a second of reading ``ids`` and of writing ``new_tokens`` after them, greedily and with a cache."""
    begun = time.perf_counter()
    out = model(input_ids=torch.tensor([ids]), use_cache=True, logits_to_keep=1)
    read = time.perf_counter()
    for _ in range(new_tokens):
        out = model(input_ids=out.logits[:, -1].argmax(-1, keepdim=True), past_key_values=out.past_key_values, use_cache=True)
    return len(ids) / (read - begun), new_tokens / (time.perf_counter() - read)


def reader_of(reader: ModelArtifact, test: pd.DataFrame, name: str) -> dict[str, Any]:
    """F1 of every test question, the bytes and the seconds of answering them all, with the reader in the format ``name``."""
    loaded = Reader.load(reader.path)
    loaded.model = in_format(name, reader.path, AutoModelForQuestionAnswering)
    loaded.model.qa_outputs.register_forward_hook(lambda part, inputs, logits: logits.float())  # bfloat16 is not numpy's
    size, begun = weight_bytes(loaded.model), time.perf_counter()
    return {"f1": scores(loaded, test)["f1"].tolist(), "seconds": time.perf_counter() - begun, "bytes": size}


def _code_metrics(parity: pd.DataFrame) -> list[Metric]:
    metrics = []
    for scheme in SCHEMES:
        rows = parity[parity["scheme"] == scheme]
        found = {
            "differing_codes": (rows["differing"].sum(), int(rows["integers"].sum())),
            "decoded_difference": (rows["decoded_difference"].max(), len(rows)),
            "rounding_error": (rows.loc[rows["weight"] == "normal", "error"].iloc[0], None),
        }  # fmt: skip
        metrics += [Metric(name=f"{name}__{scheme}", value=float(value), n=n, higher_is_better=False) for name, (value, n) in found.items()]
    return metrics


def _format_metrics(quality: dict[str, Any], speed: dict[str, Any], seed: int) -> list[Metric]:
    metrics, plain = [], np.array(quality["fp32"]["nats"])
    for name, found in quality.items():
        nats = np.array(found["nats"])
        low, high = bootstrap_mean(nats, seed=seed)
        metrics.append(Metric(name=f"megabytes__{name}", value=found["bytes"] / 1e6, unit="MB", higher_is_better=False))
        metrics.append(_loss(f"perplexity__{name}", math.exp(nats.mean()), math.exp(low), math.exp(high), len(nats)))
        if name != "fp32":
            change = paired_bootstrap(nats, plain, seed=seed)
            metrics.append(_loss(f"perplexity_change__{name}", *(math.expm1(x) for x in (change.difference, change.low, change.high)), change.n))
            metrics.append(Metric(name=f"size_of_fp32__{name}", value=found["bytes"] / quality["fp32"]["bytes"], higher_is_better=False))
        for kind, rates in speed[name].items():
            low, value, high = (float(x) for x in np.percentile(rates, [25, 50, 75]))
            timed = {"n": len(rates), "unit": "tok/s", "deterministic": False}
            metrics.append(Metric(name=f"{kind}_speed__{name}", value=value, low=low, high=high, **timed))
    return metrics


def _reader_metrics(read: dict[str, Any], seed: int) -> list[Metric]:
    metrics, plain = [], read["fp32"]
    for name, found in read.items():
        low, high = bootstrap_mean(np.array(found["f1"]), seed=seed)
        metrics.append(Metric(name=f"reader_f1__{name}", value=float(np.mean(found["f1"])), low=low, high=high, n=len(found["f1"])))
        if name != "fp32":
            change = paired_bootstrap(np.array(found["f1"]), np.array(plain["f1"]), seed=seed)
            interval = {"value": change.difference, "low": change.low, "high": change.high, "n": change.n}
            metrics.append(Metric(name=f"reader_f1_change__{name}", **interval))
            size = Metric(name=f"reader_size_of_fp32__{name}", value=found["bytes"] / plain["bytes"], higher_is_better=False)
            metrics += [size, Metric(name=f"reader_speedup__{name}", value=plain["seconds"] / found["seconds"], deterministic=False)]
    return metrics


def _loss(name: str, value: float, low: float, high: float, n: int) -> Metric:
    return Metric(name=name, value=value, low=low, high=high, n=n, higher_is_better=False)


def formats_table(quality: dict[str, Any], speed: dict[str, Any], read: dict[str, Any]) -> pd.DataFrame:
    """The syllabus's table: a row a format; the reader's F1 is NaN in a format that it cannot be held in."""
    plain = np.mean(quality["fp32"]["nats"])
    rows = [
        {
            "format": name, "megabytes": found["bytes"] / 1e6, "perplexity": math.exp(np.mean(found["nats"])),
            "perplexity_change": math.expm1(np.mean(found["nats"]) - plain), "prefill_tokens_per_second": statistics.median(speed[name]["prefill"]),
            "decode_tokens_per_second": statistics.median(speed[name]["decode"]),
            "read_gb_per_second": found["bytes"] * statistics.median(speed[name]["decode"]) / 1e9,  # decoding reads every weight once a token
            "reader_f1": float(np.mean(read[name]["f1"])) if name in read else math.nan,
        }
        for name, found in quality.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _per_example(quality: dict[str, Any]) -> pd.DataFrame:
    names = [f"block-{number:03d}" for number in range(len(quality["fp32"]["nats"]))]
    return pd.DataFrame({"example_id": names, **{f"nats__{name}": found["nats"] for name, found in quality.items()}})


def _plots(quality: dict[str, Any], speed: dict[str, Any], read: dict[str, Any]) -> dict[str, bytes]:
    table = formats_table(quality, speed, read)

    def size(axes: Axes) -> None:
        axes.scatter(table["megabytes"], table["perplexity"], s=18)
        for row in table.itertuples():
            axes.annotate(row.format, (row.megabytes, row.perplexity), fontsize=8, xytext=(3, 3), textcoords="offset points")

    def rate(axes: Axes) -> None:
        axes.barh(table["format"][::-1], table["decode_tokens_per_second"][::-1])

    return {
        "size": draw(size, title="What a format saves and costs", x="MB of weights", y="perplexity"),
        "speed": draw(rate, title="Decoding one sequence", x="tokens a second"),
    }
