"""The numbers check: the same figure however it is written, another figure never."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum.grounding.numbers import missing_numbers, numbers, numbers_supported

PASSAGE = "Llama-3-8B has 32 layers and adds 1,536 tokens; 41% of sixty-four runs, 6.5e10 steps, failed eightfold. It took 3.5 days."


@pytest.mark.parametrize(
    "claim",
    [
        "It has thirty-two layers.", "There are 1536 tokens.", "A share of 0.41 failed.", "41 percent failed.", "64 runs",
        "65B steps", "65 billion steps", "a 65-billion-step run", "Eight times as many failed.", "three and a half days",
        "Llama-3-8B was run.", "BM25 was run.", "One of them failed.", "No figure at all.",
    ],
)  # fmt: skip
def test_same_number_in_another_form_is_found(claim: str) -> None:
    assert numbers_supported(PASSAGE, claim), numbers(claim)


@pytest.mark.parametrize(
    ("claim", "missing"),
    [("It has 33 layers.", 1), ("1,537 tokens and 42%", 2), ("6.5e9 steps", 1), ("It has -32 layers.", 1), ("Llama-3-8B has 5", 1)],
)
def test_other_number_is_missing(claim: str, missing: int) -> None:
    assert missing_numbers(PASSAGE, claim) == missing


def test_ranges_and_hyphens() -> None:
    assert numbers("10-20 at rank-16, lr -5") == [frozenset({v}) for v in (10.0, 20.0, 16.0, -5.0)]


@given(st.integers(2, 10**12))
def test_grouping_does_not_matter(value: int) -> None:
    assert numbers(f"about {value:,} of them") == numbers(f"about {value} of them") == [frozenset({float(value)})]
    assert not numbers_supported(f"about {value:,} of them", f"about {value + 1} of them")


@given(st.text(max_size=60), st.text(max_size=60))
def test_a_text_holds_its_own_numbers_and_an_empty_one_none(first: str, second: str) -> None:
    assert missing_numbers(first, first) == 0
    assert missing_numbers("", second) == len(numbers(second))
