"""The races compare equal things: what both sides return is compared before anything is timed."""

from __future__ import annotations

from benchmarks.search import overlap, race_scan
from benchmarks.turns import in_turns


def test_a_scan_and_its_peer_find_the_same() -> None:
    found = race_scan(2000, dimension=16, rounds=3)
    assert found["top10_equal_share"] == 1.0
    assert found["ratio_to_numpy"] == found["faiss_ms"] / found["numpy_ms"] and found["times_the_memory_limit"] > 0


def test_overlap_and_turns() -> None:
    assert overlap([["a", "b"], ["c", "d"]], [["b", "a"], ["c", "x"]]) == 0.75
    order: list[str] = []
    sides = {name: lambda n, name=name: order.append(f"{name}{n}") or n for name in "xy"}
    spent, found = in_turns(sides, rounds=1, warm_up=2)
    assert order == ["x0", "y0", "x1", "y1", "x2", "y2"] and found == {"x": [0, 1, 2], "y": [0, 1, 2]}
    assert {name: len(values) for name, values in spent.items()} == {"x": 1, "y": 1}
