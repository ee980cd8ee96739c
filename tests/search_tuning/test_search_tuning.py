"""Tuning search: the test split opens once, the search finds a planted optimum and resumes, judgements do not follow the chunking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from curriculum.corpora.documents import document, documents_table, text_digest
from curriculum.errors import DataError
from curriculum.evaluation.gate import Verdict, judge_value
from curriculum.reranking.settings import RerankerSettings
from curriculum.results import StudyResult
from curriculum.retrieval.passages import project_passages
from curriculum.retrieval.settings import RetrievalSettings
from curriculum.search_tuning.bench import Asked, Bench, PairScores, Scored
from curriculum.search_tuning.compare import gap, sign_flip_p
from curriculum.search_tuning.held_out import HeldOut, SplitSpentError
from curriculum.search_tuning.questions import cut, places, places_of, searched_documents, split_questions
from curriculum.search_tuning.search import best_setting, run_search
from curriculum.search_tuning.settings import SearchSetting, SearchTuningSettings, default_setting
from curriculum.search_tuning.study import search_tuning
from curriculum.syllabus import load_syllabus

DEFAULT = default_setting(RetrievalSettings(), RerankerSettings())
SMALL = SearchTuningSettings(trials=14, startup=6, rerank_depth=(0, 5), depth=(20, 100))
SIZE = 40


def questions(split: str) -> pd.DataFrame:
    """A question of each of SIZE sections, in two tracks."""
    rows = [
        {"track": f"t{i % 2}", "collection": "project", "query_id": f"{split}/{i}/0", "query": str(i), "split": split, "kind": "",
         "relevant_ids": [f"s{i}"], "grades": [2], "doc_ids": ["d"], "group": f"{split}/{i}"}
        for i in range(SIZE)
    ]  # fmt: skip
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Planted:
    """Passages of SIZE sections, ``pieces`` of each: BM25 ranks the right one the higher the nearer k1 is to 1.6."""

    pieces: int = 1

    @property
    def place_of(self) -> dict[str, str]:
        return {f"s{i}p{n}": f"s{i}" for i in range(SIZE) for n in range(self.pieces)}

    @property
    def texts(self) -> dict[str, str]:
        return {name: place.removeprefix("s") for name, place in self.place_of.items()}

    @property
    def words(self) -> dict[str, int]:
        return dict.fromkeys(self.place_of, 100 // self.pieces)

    def hits(self, queries: list[str], vectors: np.ndarray, setting: SearchSetting) -> tuple[list[Any], list[Any]]:
        found = []
        for query in queries:
            own = int(query)
            rank = int(10 * abs(setting.k1 - 1.6)) + own % 2
            order = [i for i in range(SIZE) if i != own]
            order.insert(rank, own)
            found.append([(f"s{i}p{n}", float(-at)) for at, i in enumerate(order) for n in range(self.pieces)])
        return found, [[] for _ in queries]


class Noise(Bench):
    """Scores that depend on nothing: what is best on dev is so by luck."""

    def score(self, setting: SearchSetting, asked: Asked) -> Scored:
        drawn = [int(text_digest(f"{setting}{name}")[:8], 16) / 16**8 for name in asked.questions["query_id"]]
        return Scored(np.array(drawn), 0.0)


def bench(folder: Path, kind: type[Bench] = Bench, score: Callable[..., np.ndarray] | None = None) -> Bench:
    chunkings = {60: Planted(3), 90: Planted(), 140: Planted()}
    pairs = PairScores(score or (lambda pairs: np.zeros(len(pairs))), folder / "pairs.json")
    return kind(chunkings, lambda texts: np.zeros((len(texts), 1)), pairs, 0.5)  # type: ignore[arg-type]


def study(
    folder: Path, kind: type[Bench] = Bench, *, dev: pd.DataFrame | None = None, sealed: HeldOut | None = None, shuffled: bool = False,
    trials: int = 14,
) -> StudyResult:  # fmt: skip
    made = bench(folder, kind)

    def served(asked: list[str]) -> list[list[tuple[str, float]]]:
        found = made.search(DEFAULT.model_copy(update={"rerank_depth": 0}), Asked(pd.DataFrame({"query": asked}), np.empty(0)))
        return [ranking[1:11] if shuffled else ranking[:10] for ranking in found]

    sealed = sealed or HeldOut(questions("test"), folder / "read.json")
    dev = questions("dev") if dev is None else dev
    settings = SMALL.model_copy(update={"trials": trials})
    return search_tuning(made, dev, sealed, settings, DEFAULT, served=served, seed=0, checkpoints=folder, progress=lambda line: None)


def verdicts(result: StudyResult) -> dict[str, Verdict]:
    return {bar.metric: judge_value(bar, result).verdict for bar in load_syllabus().claims if bar.asset == "search_tuning_study"}


def test_the_test_split_is_given_out_once(tmp_path: Path) -> None:
    sealed, other = HeldOut(questions("test"), tmp_path / "read.json"), DEFAULT.model_copy(update={"depth": 7})
    assert sealed.read_for() == [] and len(sealed.read([other, DEFAULT])) == SIZE and len(sealed.read_for()) == 2
    with pytest.raises(SplitSpentError, match="read already"):
        sealed.read([other, DEFAULT])
    again = HeldOut(questions("test"), tmp_path / "read.json")  # another process
    with pytest.raises(SplitSpentError, match="other settings before"):
        again.read([DEFAULT])
    assert len(again.read([other, DEFAULT])) == SIZE  # a killed run goes on with the same reading


def test_test_questions_planted_among_those_that_settings_are_tried_on_are_refused(tmp_path: Path) -> None:
    for planted in (questions("test").head(1), questions("test").head(1).assign(query_id="test/0/1")):  # itself, and another phrasing of it
        with pytest.raises(AssertionError, match="1 test questions among those that settings are tried on"):
            study(tmp_path, dev=pd.concat([questions("dev"), planted], ignore_index=True))
    assert not (tmp_path / "read.json").exists() and not (tmp_path / "trials").exists()


def test_the_planted_optimum_is_found_and_a_killed_search_comes_to_the_same_trials(tmp_path: Path) -> None:
    settings = SMALL.model_copy(update={"trials": 30})
    tried: list[SearchSetting] = []

    def judge(setting: SearchSetting) -> tuple[float, dict[str, Any]]:
        tried.append(setting)
        if len(tried) == kill_at:
            raise KeyboardInterrupt
        return -abs(setting.k1 - 1.6) - abs(setting.dense_weight - 0.3) + 0.5 * (setting.fusion == "dbsf") + 0.5 * (setting.passage_words == 140), {}

    def search(folder: Path) -> list[dict[str, Any]]:
        rows = run_search(folder, settings, DEFAULT, judge, known=[], seed=0, progress=lambda line: None)
        return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]

    kill_at = 0
    rows = search(tmp_path / "whole")
    best = best_setting(rows)
    assert SearchSetting(**{n: rows[0][n] for n in SearchSetting.model_fields}) == DEFAULT and rows[0]["origin"] == "default"
    assert (best.fusion, best.passage_words) == ("dbsf", 140) and max(r["dev_ndcg_at_10"] for r in rows) > 0.7 > rows[0]["dev_ndcg_at_10"]
    kill_at = len(tried) + 11
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "killed")
    assert search(tmp_path / "killed") == rows and len(tried) == 61  # the finished ones are not run again


def test_a_real_gain_passes_and_what_the_lineage_returns_otherwise_is_seen(tmp_path: Path) -> None:
    result = study(tmp_path / "sound")
    assert set(verdicts(result).values()) == {Verdict.PASSED} and result.value("test_gain_low") > 0.05 and result.value("test_gain_p") < 0.01
    assert result.value("settings_read_on_test") == 2 and result.remarks[0].startswith("Tuning helped")
    trials = result.tables["trials"]
    assert len(trials) == 14 and trials["dev_ndcg_at_10"].max() == pytest.approx(result.value("dev_ndcg_at_10__chosen"))
    assert trials["dev_ndcg_at_10"][0] == pytest.approx(result.value("dev_ndcg_at_10__default"))
    assert {"dev__t0", "dev__t1", "words_shown", "seconds", "origin"} < set(trials) and set(result.plots) == {"trials", "tracks"}
    assert list(result.per_example["example_id"]) == list(questions("test")["query_id"])
    again = study(tmp_path / "sound", sealed=HeldOut(questions("test"), tmp_path / "sound" / "read.json"))
    assert again.metrics == result.metrics  # from what was kept
    assert verdicts(study(tmp_path / "other", shuffled=True, trials=2))["default_mismatches"] is Verdict.FAILED


def test_luck_on_dev_is_called_so(tmp_path: Path) -> None:
    result = study(tmp_path, Noise)
    held = verdicts(result)
    assert result.value("dev_gain") > 0.05 and result.value("test_gain_p") > 0.05
    assert result.remarks[0].startswith("The gain cannot be told from none")
    assert held["gain_optimism"] is Verdict.FAILED and held["test_gain_low"] is Verdict.FAILED


def test_places_score_the_same_however_finely_they_are_cut(tmp_path: Path) -> None:
    made, asked = bench(tmp_path), Asked(questions("dev"), np.empty(0))
    whole, fine = (made.score(DEFAULT.model_copy(update={"passage_words": n, "rerank_depth": 0, "k1": 1.4}), asked) for n in (90, 60))
    assert (whole.ndcg == fine.ndcg).all() and whole.ndcg[0] == pytest.approx(1 / np.log2(4)) and (whole.words, fine.words) == (1000, 330)


def test_the_reranker_orders_the_head_alone_and_scores_a_pair_once(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []

    def score(pairs: list[tuple[str, str]]) -> np.ndarray:
        seen.extend(pairs)
        return np.array([float(query == text) for query, text in pairs])

    made, asked = bench(tmp_path, score=score), Asked(questions("dev"), np.empty(0))
    setting = DEFAULT.model_copy(update={"rerank_depth": 6, "k1": 1.2})  # the right one comes fifth or sixth of the first stage
    before, after = (made.search(s, asked) for s in (setting.model_copy(update={"rerank_depth": 0}), setting))
    assert all([p for p, _ in a[6:]] == [p for p, _ in b[6:]] for a, b in zip(after, before, strict=True))
    assert made.score(setting, asked).ndcg.mean() > made.score(setting.model_copy(update={"rerank_depth": 0}), asked).ndcg.mean()
    assert len(seen) == 6 * SIZE == len(bench(tmp_path).pairs)  # the second chunking of these texts, and another process, find them scored
    made.search(setting.model_copy(update={"passage_words": 140}), asked)
    assert len(seen) == 6 * SIZE


def notes() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Six notes of two sections each, and a question with two phrasings to each; two of them test."""
    body = (
        "# {n}\n\n## Colour\n\nMost of what is written of it is about its coat. The {n} is {c} all over.\n\n"
        "In winter some of them are paler than that.\n\n## Home\n\n{h}"
    )
    home = " ".join("A house by the river is where they live, near the mill and its garden." for _ in range(4))
    colours = zip("abcdef", "red blue green grey white black".split(), strict=True)
    rows = [document(n, n, body.format(n=n, c=c, h=home), source="notes") for n, c in colours]
    asked = [
        {"question_id": f"q{n}", "note_id": n, "question": f"colour of {n}", "phrasings": [f"what is {n} like"], "kind": "answerable",
         "answers": [f"The {n} is"], "difficulty": "easy", "split": "test" if n in "ef" else "dev"}
        for n in "abcdef"
    ]  # fmt: skip
    return documents_table(rows, "notes"), pd.DataFrame(asked)


def test_judgements_come_from_the_source_and_documents_are_those_of_the_project(tmp_path: Path) -> None:
    found, asked = notes()
    summary = "Return the sum of all the values that were given."
    docs = documents_table(
        [document("f", "add", f"{summary} {'It takes as many values as there are, and each of them is counted once. ' * 4}", source="stdlib",
                  kind="function", summary=summary, qualified_name="add")], "docs"
    )  # fmt: skip
    found = found[found["doc_id"] != "f"]
    retrieval = RetrievalSettings(passage_words=20, known_items=1)
    own = project_passages(found, docs, retrieval)
    documents = searched_documents(own, found, docs)
    pd.testing.assert_frame_equal(cut(documents, 20), own, check_dtype=False)  # what other chunkings are cut by is what the project is cut by
    assert (own["known_item_query"] != "").sum() == 1 and not documents["text"].str.contains("Return the sum").any()
    whole = places(documents)
    for words in (12, 20, 200):
        made = cut(documents, words)
        of = places_of(made, whole)
        assert set(of.values()) == set(whole["passage_id"]) and len(made) >= len(whole)
    settings = SearchTuningSettings(dev_questions=9, test_questions=9)
    dev, sealed = split_questions(whole, asked, pd.DataFrame(), {"b"}, settings, tmp_path / "read.json")
    notes_dev = dev[dev["track"] == "notes"]
    assert sorted(notes_dev["group"]) == ["notes/qa", "notes/qc", "notes/qd"]  # a phrasing each; the reranker was trained on b
    places_named = whole.set_index("passage_id")["section"]
    assert all([places_named[p] for p in ids] == ["Colour"] for ids in notes_dev["relevant_ids"])
    test = sealed.read([DEFAULT])
    assert "notes/qe" in set(test["group"]) and not set(test["group"]) & set(dev["group"])
    with pytest.raises(DataError, match="there are no dev questions"):
        split_questions(whole, asked[asked["split"] == "test"], pd.DataFrame(), {"f"}, settings, tmp_path / "none.json")
    with pytest.raises(DataError, match="are in no corpus, a among them; materialise passages again"):
        searched_documents(own, found[found["doc_id"] != "a"], docs)


def test_no_gain_has_p_1_and_a_gap_is_between_means() -> None:
    rng = np.random.default_rng(0)
    assert sign_flip_p(np.zeros(9), 0) == 1.0 and sign_flip_p(np.full(12, 0.1), 0) < 0.01 and sign_flip_p(rng.normal(size=50), 0) > 0.05
    found = gap("g", np.full(30, 0.7), rng.uniform(0.2, 0.6, 40), 0)
    assert found.low is not None and found.high is not None and 0.2 < found.low < found.value < found.high < 0.4


@pytest.mark.parametrize(("changed", "said"), [({"k1": (2.0, 1.0)}, "from its lower to its upper"), ({"passage_words": (5,)}, "more than 10 words")])
def test_a_wrong_range_says_what_is_wrong(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SearchTuningSettings(**changed)
