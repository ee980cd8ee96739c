"""The races compare equal things: what both sides return is compared before anything is timed."""

from __future__ import annotations

from benchmarks.search import in_turns, overlap, race_scan


def test_a_scan_and_its_peer_find_the_same() -> None:
    found = race_scan(2000, dimension=16, rounds=3)
    assert found["top10_equal_share"] == 1.0
    assert found["ratio_to_numpy"] == found["faiss_ms"] / found["numpy_ms"] and found["times_the_memory_limit"] > 0


def test_overlap_and_turns() -> None:
    assert overlap([["a", "b"], ["c", "d"]], [["b", "a"], ["c", "x"]]) == 0.75
    order: list[str] = []
    times = in_turns({"x": lambda n: order.append(f"x{n}"), "y": lambda n: order.append(f"y{n}")}, rounds=1)
    assert order == ["x0", "y0", "x1", "y1", "x2", "y2"] and set(times) == {"x_ms", "y_ms"}
