"""Every batch is finished once and given out in order, whoever dies and whatever comes first. No cluster is needed for this."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum.cluster import session
from curriculum.cluster.board import AHEAD, EACH, TRIES, Board
from curriculum.errors import DataError, UserError
from curriculum.ingest.vectors import KnownVectors, Reusing
from curriculum.retrieval.dense import Shard, encoded_shards
from curriculum.retrieval.settings import RetrievalSettings

SETTINGS = RetrievalSettings(encoder="path:lengths")


class Lengths:
    """Texts as (their length, their first letter); several batches in hand, finished in the order that ``draws`` says."""

    dimension = 2

    def __init__(self, draws: list[int]) -> None:
        self.draws, self.asked = draws, list[list[str]]()

    def passages(self, texts: list[str]) -> np.ndarray:
        self.asked.append(texts)
        return np.array([[len(text), ord(text[0])] for text in texts], dtype=np.float32)

    def map(self, batches: Iterable[list[str]]) -> Iterator[tuple[int, np.ndarray]]:
        held: list[tuple[int, np.ndarray]] = []
        for number, texts in enumerate(batches):
            if not texts:
                yield number, np.empty((0, 0), np.float32)
                continue
            held.append((number, self.passages(texts)))
            while len(held) > 3:
                yield held.pop(self.draws[number % len(self.draws)] % len(held))
        yield from reversed(held)


def shards_in(folder: Path, texts: list[str], size: int = 2) -> list[Shard]:
    return [Shard(texts[at : at + size], folder / f"{at:05d}.safetensors", texts[at : at + size]) for at in range(0, len(texts), size)]


def run(encoder: object, shards: list[Shard]) -> np.ndarray:
    out = list(encoded_shards(encoder, SETTINGS, iter(shards)))
    assert [shard.ids for shard, _ in out] == [shard.ids for shard in shards]
    return np.concatenate([vectors for _, vectors in out])


TEXTS = [chr(97 + n % 26) * (1 + n) for n in range(23)]
EXPECTED = np.array([[len(text), ord(text[0])] for text in TEXTS], dtype=np.float32)


@given(sizes=st.lists(st.integers(0, 2), max_size=40), events=st.lists(st.integers(0, 99), max_size=400))
def test_every_batch_is_finished_once_whoever_dies(sizes: list[int], events: list[int]) -> None:
    board, finished, held, deaths = Board([["text"] * size for size in sizes]), list[int](), dict[str, list[int]](), dict[int, int]()
    workers, script = 0, iter(events)
    for _ in range(20 * len(sizes) + 20 + len(events)):
        while (empty := board.draw()) is not None:
            assert sizes[empty] == 0
            finished.append(empty)
        if board.over:
            break
        event, live = next(script, 50), sorted(held)
        if event < 15 or not live:
            workers += 1
            held[f"worker {workers}"] = []
            board.join(f"worker {workers}")
        elif event < 25 and all(deaths.get(number, 0) < TRIES - 1 for number in held[live[event % len(live)]][:1]):
            gone = live[event % len(live)]
            for number in held[gone][:1]:
                deaths[number] = deaths.get(number, 0) + 1
            assert board.lose(gone) == held.pop(gone)
        elif event < 60 and (given_out := board.give()):
            worker, number, texts = given_out
            assert len(texts) == sizes[number] and number not in {n for numbers in held.values() for n in numbers}
            held[worker].append(number)
            assert len(held[worker]) <= EACH
        elif any(held.values()):
            worker = next(name for name in live if held[name])
            finished.append(held[worker].pop(event % len(held[worker])))
            board.finish(worker, finished[-1])
    assert board.over and sorted(finished) == list(range(len(sizes)))


def test_a_batch_that_ends_its_workers_is_named_and_its_neighbour_is_not_blamed() -> None:
    board = Board([["poison"], ["harmless"]])
    for number in range(TRIES):
        board.join(f"worker {number}")
        given_out = []
        for _ in range(2):
            board.draw()
            given_out.append(board.give())
        assert [each[1] for each in given_out if each] == [0, 1]
        if number < TRIES - 1:
            assert board.lose(f"worker {number}") == [0, 1]
    with pytest.raises(DataError, match=rf"batch 0 of the passages ended {TRIES} workers, the last one worker {TRIES - 1}"):
        board.lose(f"worker {TRIES - 1}")


def test_texts_are_not_read_further_ahead_than_the_first_unfinished_batch_allows() -> None:
    read = []

    def endless() -> Iterator[list[str]]:
        while True:
            read.append(1)
            yield ["text"]

    board = Board(endless())
    board.join("stuck")
    board.draw()
    assert board.give() == ("stuck", 0, ["text"])
    board.join("quick")
    for _ in range(1000):
        board.draw()
        given_out = board.give()
        if given_out is None:
            break
        if given_out[0] == "quick":
            board.finish("quick", given_out[1])
    assert AHEAD < len(read) <= 2 * AHEAD + 2


@given(draws=st.lists(st.integers(0, 9), min_size=1, max_size=12))
def test_vectors_come_in_order_and_are_kept_whatever_is_finished_first(tmp_path_factory: pytest.TempPathFactory, draws: list[int]) -> None:
    folder, encoder = tmp_path_factory.mktemp("shards"), Lengths(draws)
    shards = shards_in(folder, TEXTS)
    np.testing.assert_array_equal(run(encoder, shards), EXPECTED)
    assert len(encoder.asked) == len(shards) == len(list(folder.iterdir()))
    again = Lengths(draws)
    np.testing.assert_array_equal(run(again, shards), EXPECTED)
    assert not again.asked


def test_vectors_under_the_wrong_number_would_be_seen(tmp_path: Path) -> None:
    class Swapped(Lengths):
        def map(self, batches: Iterable[list[str]]) -> Iterator[tuple[int, np.ndarray]]:
            found = list(super().map(batches))
            (a, first), (b, second) = found[:2]
            yield from [(a, second), (b, first), *found[2:]]

    assert not np.array_equal(run(Swapped([0]), shards_in(tmp_path, TEXTS)), EXPECTED)


@pytest.mark.parametrize("spoil", ["torn", "a bit flipped", "another's texts", "gone"])
def test_only_the_spoilt_shard_is_encoded_again_with_one_worker_or_several(tmp_path: Path, spoil: str) -> None:
    shards = shards_in(tmp_path, TEXTS)
    run(Lengths([0]), shards)
    victim = shards[3].kept
    content = bytearray(victim.read_bytes())
    if spoil == "torn":
        victim.write_bytes(content[:-3])
    elif spoil == "a bit flipped":
        content[-1] ^= 1
        victim.write_bytes(content)
    elif spoil == "another's texts":
        victim.write_bytes(shards[4].kept.read_bytes())
    else:
        victim.unlink()
    again = Lengths([1, 0])
    np.testing.assert_array_equal(run(again, shards), EXPECTED)
    assert again.asked == [shards[3].texts]


def test_what_was_finished_out_of_turn_is_kept_when_the_driver_dies(tmp_path: Path) -> None:
    class Killed(Lengths):
        def map(self, batches: Iterable[list[str]]) -> Iterator[tuple[int, np.ndarray]]:
            for count, found in enumerate(super().map(batches)):
                if count == 5:
                    raise KeyboardInterrupt
                yield found

    shards, killed = shards_in(tmp_path, TEXTS), Killed([2])  # shards 0 and 1 stay in hand, later ones are finished
    with pytest.raises(KeyboardInterrupt):
        run(killed, shards)
    kept = {path.name for path in tmp_path.iterdir()}
    assert len(kept) == 5 and shards[0].kept.name not in kept
    one_by_one = Lengths([0])
    resumed = type("Serial", (), {"passages": one_by_one.passages, "dimension": 2})()
    np.testing.assert_array_equal(run(resumed, shards), EXPECTED)
    assert len(one_by_one.asked) == len(shards) - 5


@given(draws=st.lists(st.integers(0, 9), min_size=1, max_size=6), known=st.sets(st.integers(0, len(TEXTS) - 1)))
def test_known_texts_are_not_sent_whatever_is_finished_first(draws: list[int], known: set[int]) -> None:
    class Known(KnownVectors):
        def find(self, digests: list[str], out: np.ndarray) -> np.ndarray:
            rows = [place[digest] for digest in digests]
            found = np.array([row in known for row in rows], dtype=bool)
            for at in np.flatnonzero(found):
                out[at] = EXPECTED[rows[at]]
            return found

    from curriculum.ingest.vectors import _digest

    place = {_digest(text): n for n, text in enumerate(TEXTS)}
    encoder = Lengths(draws)
    reusing = Reusing(encoder, Known(None))
    batches = [TEXTS[at : at + 3] for at in range(0, len(TEXTS), 3)]
    made = dict(reusing.map(batches))
    np.testing.assert_array_equal(np.concatenate([made[n] for n in range(len(batches))]), EXPECTED)
    assert (reusing.encoded, reusing.reused) == (len(TEXTS) - len(known), len(known))
    assert sorted(text for texts in encoder.asked for text in texts) == sorted(text for n, text in enumerate(TEXTS) if n not in known)


def test_without_ray_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(session, "TOOLS", tmp_path)
    monkeypatch.setitem(session.sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"install the cluster extra by `make ray`, or set compute\.engine: local"), session.ray_session("", print):
        pass
