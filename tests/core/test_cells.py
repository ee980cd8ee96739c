"""Cells: what is finished is kept, what is damaged is computed again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from curriculum.cells import Cell, Cells


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


def _squares(number: int, folder: Path) -> dict[str, int]:
    if (folder / "broken").exists() and number == 3:
        raise ValueError("three is not to be had")
    return {"square": number * number, "process": os.getpid(), "threads": torch.get_num_threads()}


def _said(_: int, found: dict[str, int]) -> str:
    return f"it is {found['square']}"


@pytest.mark.parametrize("workers", [1, 2])
def test_cells_side_by_side_are_the_cells_one_after_another(tmp_path: Path, workers: int) -> None:
    said: list[str] = []
    wanted = [Cell(f"square of {n}", n, _squares, (n, tmp_path)) for n in range(6)]
    found = Cells(tmp_path, said.append).get_all(wanted, workers, _said)
    assert [cell["square"] for cell in found] == [0, 1, 4, 9, 16, 25]
    assert sorted(line.split(" ", 1)[1] for line in said) == [f"square of {n}: it is {n * n}" for n in range(6)]
    assert [line.split(" ")[0] for line in said] == [f"{n}/6" for n in range(1, 7)]
    processes = {cell["process"] for cell in found}
    assert processes == {os.getpid()} if workers == 1 else os.getpid() not in processes and all(cell["threads"] == 1 for cell in found)
    said.clear()
    more = Cells(tmp_path, said.append).get_all([*wanted, Cell("square of 7", 7, _squares, (7, tmp_path))], workers, _said)
    assert more[:6] == found and more[6]["square"] == 49
    assert said == [*(f"square of {n}: kept from before" for n in range(6)), "7/7 square of 7: it is 49"]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_in_one_of_several_is_the_studys_and_loses_none_that_ended(tmp_path: Path, workers: int) -> None:
    (tmp_path / "broken").touch()
    wanted, done, said = [Cell(f"square of {n}", n, _squares, (n, tmp_path)) for n in range(6)], list[str](), list[str]()
    with pytest.raises(ValueError, match="three is not to be had"):
        Cells(tmp_path, done.append).get_all(wanted, workers, _said)
    assert done and not any("square of 3" in line for line in done)
    (tmp_path / "broken").unlink()
    found = Cells(tmp_path, said.append).get_all(wanted, workers, _said)
    assert [cell["square"] for cell in found] == [0, 1, 4, 9, 16, 25] and sum(line.endswith("kept from before") for line in said) == len(done)
