"""The Triton kernels against naive attention, by Triton's interpreter where there is no GPU, and compiled for GPUs that are not here."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from curriculum.transformer.attention import causal_mask, naive_attention
from curriculum.transformer.attention_study import kernel_error, parity_cases

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed: it comes with torch's builds for a GPU (alone it is 300 MB to fetch)", allow_module_level=True)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"  # Triton reads it when it is first imported
kernels = importlib.import_module("curriculum.transformer.triton_attention")
torch.set_num_threads(1)
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", sorted(parity_cases(0)))
def test_output_and_gradients_equal_the_naive_form(name: str) -> None:
    assert kernel_error(parity_cases(1)[name], DEVICE, "float32", tile=(16, 16)) <= 1e-5


@pytest.mark.parametrize("name", ["causal and padding", "grouped-query"])
def test_half_precision_stays_within_its_rounding(name: str) -> None:
    error = kernel_error(parity_cases(2)[name], DEVICE, "float16", tile=(16, 32))
    assert 1e-6 < error <= 5e-3  # a result in float16 has eleven bits: an error of zero would say that nothing was rounded


@pytest.mark.skipif(DEVICE == "cpu", reason="Triton's interpreter has no arithmetic of bfloat16")
def test_bfloat16_stays_within_its_rounding() -> None:
    assert kernel_error(parity_cases(2)["grouped-query"], DEVICE, "bfloat16") <= 4e-2


@pytest.mark.parametrize(("queries", "keys", "size"), [(1, 50, 24), (40, 17, 16), (20, 52, 40)])
def test_any_length_and_head_dimension_with_the_last_query_at_the_last_key(queries: int, keys: int, size: int) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, heads, length, size, device=DEVICE) for heads, length in ((4, queries), (2, keys), (2, keys)))
    case = {"q": q, "k": k, "v": v, "mask": None, "causal": True}
    assert kernel_error(case, DEVICE, "float32", tile=(16, 16)) <= 1e-5
    out = kernels.triton_attention(q, k, v, causal=True, tile=(16, 32))
    assert (out - naive_attention(q, k, v)).abs().max() > 1e-2 or queries == 1  # the mask is not idle


def test_inputs_that_are_views_are_read_as_they_are() -> None:
    q, k, v = (torch.randn(1, 20, 2, 16, device=DEVICE).transpose(1, 2) for _ in range(3))
    torch.testing.assert_close(kernels.triton_attention(q, k, v, tile=(16, 16)), naive_attention(q, k, v), atol=1e-5, rtol=0)


def test_a_query_that_sees_nothing_gets_zeros_and_gives_no_gradient() -> None:
    q, k, v = (torch.randn(2, 1, 5, 16, device=DEVICE, requires_grad=True) for _ in range(3))
    mask = torch.tensor([[True] * 5, [False] * 5], device=DEVICE)[:, None, None]
    out = kernels.triton_attention(q, k, v, mask, tile=(16, 16))
    out.sum().backward()
    assert out[1].abs().max() == 0 and torch.isfinite(out).all() and out[0].abs().min() > 0
    for x in (q, k, v):
        assert x.grad is not None and torch.isfinite(x.grad).all() and x.grad[1].abs().max() == 0


def test_what_the_kernels_cannot_do_is_said() -> None:
    q = torch.randn(1, 1, 4, 16, device=DEVICE)
    with pytest.raises(ValueError, match=r"causality as a flag and a mask of padded keys \[B, 1, 1, S\], not one of shape \(4, 4\)"):
        kernels.triton_attention(q, q, q, causal_mask(4, 4))
    with pytest.raises(ValueError, match="powers of 2 from 16 on"):
        kernels.triton_attention(q, q, q, tile=(16, 24))


COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from curriculum.transformer import triton_attention as kernels

chosen = {"CAUSAL": True, "PADDED": True, "D": 64, "ROWS": 64, "COLUMNS": 64}
types = {"seen_ptr": "*i8", "lse_ptr": "*fp32", "delta_ptr": "*fp32", "scale": "fp32"}
for name in ("_forward", "_backward_queries", "_backward_keys"):
    kernel = getattr(kernels, name)
    signature = {a: "constexpr" if a in chosen else types.get(a, "*bf16" if a.endswith("_ptr") else "i32") for a in kernel.arg_names}
    made = triton.compile(ASTSource(kernel, signature, chosen), target=GPUTarget("cuda", 80, 32))
    print(name, len(made.asm["cubin"]), "mma.sync" in made.asm["ptx"], made.metadata.shared)
"""


def test_the_kernels_compile_for_a_gpu_and_use_its_tensor_cores(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(tmp_path)}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    done = subprocess.run([sys.executable, "-c", COMPILED], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == ["_forward", "_backward_queries", "_backward_keys"]
    assert all(int(size) > 1000 and products == "True" and int(shared) < 100_000 for _, size, products, shared in lines)
