"""The roofline: what is counted is what the operations do, and nothing is placed above what the roofs allow it to claim."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from curriculum.transformer.attention import fused_attention, naive_attention
from curriculum.transformer.attention_study import exponents, forms, growth
from curriculum.transformer.roofline import attention_flops, attention_traffic, draw_roofline, roofline
from curriculum.transformer.settings import AttentionStudySettings

torch.set_num_threads(1)
SMALL = AttentionStudySettings(lengths=(64, 128, 256), heads=2, head_dim=16, tile=32, repeats=1)


class MovedBytes(TorchDispatchMode):
    """Bytes of every tensor that an operation with a result of its own reads or writes; views move nothing."""

    moved = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        outputs = [x for x in (out if isinstance(out, tuple) else (out,)) if isinstance(x, torch.Tensor)]
        inputs = [x for x in args if isinstance(x, torch.Tensor)]
        if not {x.untyped_storage()._cdata for x in inputs} & {x.untyped_storage()._cdata for x in outputs}:
            self.moved += sum(x.nbytes for x in [*inputs, *outputs])
        return out


@pytest.mark.parametrize(("name", "form"), [("naive", naive_attention), ("sdpa", fused_attention)])
def test_the_traffic_is_what_the_operations_read_and_write(name: str, form: Any) -> None:
    q, k, v = (torch.randn(1, 2, 256, 16) for _ in range(3))
    with MovedBytes() as counted:
        form(q, k, v)
    expected = attention_traffic(name, 256, heads=2, head_dim=16, tile=32)
    assert expected == pytest.approx(counted.moved, rel=0.04)  # the fused kernel writes a log-sum-exp a query as well
    assert expected != pytest.approx(attention_traffic("tiled", 256, heads=2, head_dim=16, tile=32), rel=0.1)


def test_tiles_read_keys_and_values_once_for_every_tile_of_queries() -> None:
    once = 2 * 100 * 16 * 4
    assert attention_traffic("tiled", 100, heads=2, head_dim=16, tile=32) == 2 * once + 4 * 2 * once
    assert attention_traffic("tiled", 100, heads=2, head_dim=16, tile=100) == attention_traffic("sdpa", 100, heads=2, head_dim=16, tile=1)


def test_the_flops_are_torchs_own_count_of_the_products() -> None:
    q, k, v = (torch.randn(1, 2, 64, 16) for _ in range(3))
    with FlopCounterMode(display=False) as counter:
        naive_attention(q, k, v)
    assert counter.get_total_flops() == attention_flops(64, heads=2, head_dim=16)


def test_every_form_has_a_point_a_length_under_the_lower_roof() -> None:
    points, roofs = roofline(forms(SMALL), SMALL, seed=0)
    assert len(points) == 9 and set(points["form"]) == {"naive", "tiled", "sdpa"}
    allowed = (roofs["bandwidth"] * points["flops_a_byte"]).clip(upper=roofs["peak"]) / 1e9
    assert points["roof_gflops"].tolist() == pytest.approx(allowed.tolist())
    assert (points["share_of_roof"] * points["roof_gflops"]).tolist() == pytest.approx(points["gflops"].tolist())
    per_byte = points.pivot(index="length", columns="form", values="flops_a_byte")
    assert per_byte["naive"].max() < SMALL.head_dim / 6  # bounded whatever the length, where the fused form's grows with it
    assert per_byte.loc[256, "sdpa"] == 4 * per_byte.loc[64, "sdpa"]
    assert draw_roofline(points, roofs)[:4] == b"\x89PNG"


def test_the_table_of_exponents_has_time_and_memory_of_every_form() -> None:
    table = growth(SMALL, 0, lambda _: None)
    fitted = exponents(table).set_index("form")
    assert set(fitted.index) == {"naive", "tiled", "sdpa"} and fitted.loc["naive", "memory_exponent"] > fitted.loc["tiled", "memory_exponent"]
    table["seconds"] = 1e-6 * table["length"] ** 1.5
    assert exponents(table)["time_exponent"].tolist() == pytest.approx([1.5] * 3)
