"""Golden losses: 100 training steps of every family on a small fixed text, whose curves must not move unnoticed.

`python -m tests.transformer.golden` trains and prints how far each curve is from the stored one; nothing is written. After a change that
is meant to move them, `python -m tests.transformer.golden --write` stores the new curves; say in the commit why they moved. Run it from
the repository's root. One thread, because the order of sums depends on the number of them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

STORED = Path(__file__).with_name("golden_losses.json")
TEXT = Path(__file__).with_name("golden_text.txt")
SAME, ELSEWHERE = 1e-6, 1e-3  # tolerated change of a loss, in nats: on the platform the curves were stored on, and on any other
STEPS, LENGTH = 100, 32
BYTES, MASK, SENTINEL = 256, 256, 257  # a token a byte, then the mask and the sentinels
SHAPE = {"vocab_size": 264, "layers": 2, "width": 32, "heads": 4, "hidden": 64}


def families() -> dict[str, tuple[Any, Any]]:
    """Name -> configuration and objective: parts differ too, so that norms, activations and positions of each kind are there.

    No routed experts: a token whose best two all but tie goes elsewhere under other kernels, which moved a curve by 0.04 nats.
    """
    from curriculum.transformer.config import ModelConfig
    from curriculum.transformer.objectives import MaskedToken, NextToken, SpanCorruption

    bert = {"norm": "layer", "norm_place": "post", "activation": "gelu", "position": "learned", "max_positions": LENGTH, "biases": True}
    t5 = {"norm": "rms", "activation": "relu", "position": "t5", "encoder_layers": 2}
    return {
        "decoder": (ModelConfig(**SHAPE, kv_heads=2), NextToken()),
        "encoder": (ModelConfig(**SHAPE, kv_heads=4, stack="encoder", embedding_norm=True, **bert), MaskedToken(BYTES, MASK)),
        "encoder-decoder": (ModelConfig(**SHAPE, kv_heads=4, stack="encoder-decoder", **t5), SpanCorruption(SENTINEL)),
    }


def curves() -> dict[str, list[float]]:
    """Family -> the loss of each step, in nats an asked token; on one thread."""
    import numpy as np
    import torch

    from curriculum.transformer.settings import TrainingSettings
    from curriculum.transformer.training import train_config

    torch.set_num_threads(1)
    data = np.frombuffer(TEXT.read_bytes(), dtype=np.uint8).astype(np.int64)
    rows = (len(data) - 1) // LENGTH
    blocks = torch.from_numpy(data[np.arange(rows)[:, None] * LENGTH + np.arange(LENGTH + 1)[None]])
    settings = TrainingSettings(steps=STEPS, batch_size=4, warmup_steps=10, checkpoint_every=STEPS)
    found = {}
    for name, (config, objective) in families().items():
        with tempfile.TemporaryDirectory() as folder:
            found[name] = train_config(
                config, blocks, settings, seed=0, checkpoints=Path(folder), progress=lambda line: None, objective=objective
            ).losses
    return found


def identity() -> dict[str, str]:
    """What a loss's last digits depend on: the processor, what torch uses of it, torch and its libraries, the threads."""
    import torch

    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = " ".join(sorted(said.get("flags", said.get("Features", "")).split()))
    return {
        "machine": platform.machine(), "system": platform.system(), "processor": said.get("model name", platform.processor()),
        "flags": hashlib.sha256(flags.encode()).hexdigest()[:16], "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__, "libraries": hashlib.sha256(torch.__config__.show().encode()).hexdigest()[:16], "threads": "1",
    }  # fmt: skip


def tolerance(stored: dict[str, Any], here: dict[str, str]) -> float:
    """How far a loss may be from the stored one here."""
    return SAME if stored["platform"] == here else ELSEWHERE


def differences(stored: dict[str, Any], found: dict[str, list[float]]) -> dict[str, float]:
    """Family -> largest change of a step's loss; infinite where a curve is missing, new, of another length, or not a number."""
    out = {}
    for name in stored["curves"].keys() | found.keys():
        old, new = stored["curves"].get(name, []), found.get(name, [])
        changes = [abs(a - b) for a, b in zip(old, new, strict=False)]
        sound = len(old) == len(new) > 0 and all(change == change for change in changes)
        out[name] = max(changes) if sound else float("inf")
    return out


def moved(stored: dict[str, Any], found: dict[str, list[float]], here: dict[str, str]) -> dict[str, float]:
    """The families whose curve is further from the stored one than :func:`tolerance`."""
    return {name: change for name, change in differences(stored, found).items() if not change <= tolerance(stored, here)}


def main() -> int:
    """Prints or writes; exit status 1 when a curve moved and nothing was written."""
    parser = argparse.ArgumentParser(description="train 100 steps a family and compare the losses with the stored ones")
    parser.add_argument("--write", action="store_true", help="store the new curves in the place of the old")
    parser.add_argument("--json", action="store_true", help="print the new curves and the platform as JSON, and nothing else")
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found, here = curves(), identity()
    if asked.json:
        print(json.dumps({"platform": here, "curves": found}))
        return 0
    stored = json.loads(STORED.read_text()) if STORED.exists() else {"platform": {}, "curves": {}}
    for name, change in sorted(differences(stored, found).items()):
        print(f"{name}: largest change {change:.3g} nats, tolerated here {tolerance(stored, here):g}")
    if asked.write:
        STORED.write_text(json.dumps({"platform": here, "curves": found}, indent=1) + "\n")
        print(f"wrote {STORED.name}")
        return 0
    return int(bool(moved(stored, found, here)))


if __name__ == "__main__":
    raise SystemExit(main())
