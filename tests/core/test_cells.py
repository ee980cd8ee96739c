"""Cells: what is finished is kept, what is damaged is computed again."""

from __future__ import annotations

from pathlib import Path

import pytest

from curriculum.cells import Cells


def test_a_finished_cell_is_not_computed_again_unless_its_settings_change(tmp_path: Path) -> None:
    calls: list[int] = []

    def compute() -> dict[str, float]:
        calls.append(1)
        return {"loss": 1.5, "curve": [2.0, 1.5]}

    first = Cells(tmp_path).get("rope/0", {"steps": 3}, compute)
    assert Cells(tmp_path).get("rope/0", {"steps": 3}, compute) == first == {"loss": 1.5, "curve": [2.0, 1.5]} and len(calls) == 1
    Cells(tmp_path).get("rope/0", {"steps": 4}, compute)
    Cells(tmp_path).get("alibi/0", {"steps": 3}, compute)
    assert len(calls) == 3


def test_a_cell_that_fails_keeps_the_finished_ones_and_a_damaged_file_is_made_again(tmp_path: Path) -> None:
    cells, said = Cells(tmp_path), []
    cells.get("a", 0, lambda: {"x": 1})
    with pytest.raises(ZeroDivisionError):
        cells.get("b", 0, lambda: {"x": 1 / 0})
    assert Cells(tmp_path, said.append).get("a", 0, lambda: {"x": 2}) == {"x": 1} and said == ["a: kept from before"]
    (only,) = tmp_path.glob("*.json")
    only.write_text("{half")
    assert cells.get("a", 0, lambda: {"x": 2}) == {"x": 2}
