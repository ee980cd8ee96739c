"""Integers from scratch equal the libraries', and what is seen when a scale, its scope or the rounding is another one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from curriculum.adaptation import nf4
from curriculum.evaluation.gate import Verdict, judge
from curriculum.quantisation import codes
from curriculum.quantisation.codes import absmax_rows, q4_1, q8_0, zero_point
from curriculum.quantisation.parity import SCHEMES, compare_codes, drawn_weights
from curriculum.syllabus import load_syllabus

torch.set_num_threads(1)
NOTE = torch.tensor([[0.40, -1.27, 0.03, 0.90]])


def differing(seed: int = 0) -> dict[str, int]:
    return compare_codes(drawn_weights(seed)).groupby("scheme")["differing"].sum().to_dict()


def verdict(metric: str, value: float) -> Verdict:
    return judge(next(bar for bar in load_syllabus().claims if bar.asset == "quantisation_study" and bar.metric == metric), value).verdict


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_integer_equals_the_library_s(seed: int) -> None:
    table = compare_codes(drawn_weights(seed))
    assert set(table["scheme"]) == set(SCHEMES) and (table["differing"] == 0).all()
    assert (table["decoded_difference"] < 1e-5).all() and (table["integers"] > 10_000).all()


def test_the_note_s_example() -> None:
    assert absmax_rows(NOTE).values.tolist() == [[40, -127, 3, 90]]
    outlier = absmax_rows(torch.cat([NOTE, torch.tensor([[12.7]])], dim=1))
    assert outlier.values[0, :4].tolist() == [4, -13, 0, 9], "one large weight takes the resolution of all that share its scale"
    positive = zero_point(torch.tensor([0.0, 0.5, 2.55]))
    assert positive.values.tolist() == [[0, 50, 255]] and float(positive.zeros) == 0


def test_rounding_errs_by_a_step_over_the_root_of_twelve() -> None:
    table = compare_codes({"normal": drawn_weights(3)["normal"]}).set_index("scheme")
    for scheme in ("absmax", "absmax_torch", "zero_point", "q8_0", "q4_1"):
        assert table.loc[scheme, "error"] == pytest.approx(table.loc[scheme, "predicted"], rel=0.05)
    assert table.loc["nf4", "error"] > 10 * table.loc["absmax", "error"]
    assert table.loc["q8_0", "error"] < table.loc["absmax", "error"], "a scale a block of 32 errs less than one a row"
    assert table["bits_a_weight"].to_dict() == pytest.approx(
        {"absmax": 8 + 32 / 576, "absmax_torch": 8 + 32 / 576, "zero_point": 8, "q8_0": 8.5, "q4_1": 5, "nf4": 4.5}, abs=1e-3
    )


def test_all_zeros_and_one_value() -> None:
    for scheme in (absmax_rows, zero_point, q8_0, q4_1):
        assert torch.equal(scheme(torch.zeros(2, 64)).decode().flatten(), torch.zeros(128))
        assert torch.allclose(scheme(torch.full((2, 64), 0.5)).decode().flatten(), torch.full((128,), 0.5), atol=1e-3)


BROKEN: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "q8_0": lambda patch: patch.setattr(codes, "BLOCK", 64),
    "q4_1": lambda patch: patch.setattr(codes, "BLOCK", 16),
    "nf4": lambda patch: patch.setattr(nf4, "BLOCK", 128),
    "absmax": lambda patch: patch.setattr(codes, "absmax_rows", lambda weight, real=codes.absmax_rows, **more: real(weight, reach=128.0)),
    "absmax_torch": lambda patch: patch.setattr(codes, "absmax_rows", lambda weight, real=codes.absmax_rows, **more: real(weight)),
    "zero_point": lambda patch: patch.setattr(codes, "zero_point", lambda weight, real=codes.zero_point: real(weight.abs())),
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_another_scale_or_scope_is_seen(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verdict(f"differing_codes__{scheme}", differing()[scheme]) is Verdict.PASSED
    BROKEN[scheme](monkeypatch)
    assert verdict(f"differing_codes__{scheme}", differing()[scheme]) is Verdict.FAILED


def test_ties_rounded_away_from_zero_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codes.torch, "round", lambda x: torch.sign(x) * torch.floor(x.abs() + 0.5))
    ties = codes.absmax_rows(drawn_weights(0)["ties"]).values
    monkeypatch.undo()
    assert (ties != codes.absmax_rows(drawn_weights(0)["ties"]).values).float().mean() > 0.1
