"""Two searches: the second one reaches what the question does not name, only if it hears of the own first passage."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from hypothesis import given as holds
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from curriculum.artifacts import ModelArtifact
from curriculum.errors import DataError
from curriculum.evaluation.gate import Verdict, judge_value
from curriculum.multi_hop.hops import WAYS, Asking, Hops
from curriculum.multi_hop.settings import MultiHopSettings
from curriculum.multi_hop.study import asked, multi_hop_study
from curriculum.rag.answerers import ReaderAnswerer
from curriculum.results import StudyResult
from curriculum.retrieval.bm25 import Hits
from curriculum.storage import ArtifactStore
from curriculum.syllabus import load_syllabus

SETTINGS = MultiHopSettings(shown=2, beam=1, depth=6)
CLAIMS = {bar.metric: bar for bar in load_syllabus().claims if bar.asset == "multi_hop_study"}
COUNT = 16


def passages() -> pd.DataFrame:
    """Of each painter a passage that names the town, of each town one that names its river, and as many on towns that nobody asks about."""
    texts = {}
    for n in range(COUNT):
        texts[f"painter{n}"] = f"The painter name{n} was born in town{n}x."
        texts[f"town{n}"] = f"Through town{n}x flows the river water{n}y. Boats pass it."
        texts[f"other{n}"] = f"The painter of old, and the river of a town that was born in no{n}."
    rows = [{"passage_id": f"{d}#0", "collection": "project", "doc_id": d, "title": "", "section": "", "text": t} for d, t in texts.items()]
    return pd.DataFrame(rows)


def questions() -> pd.DataFrame:
    return pd.DataFrame([{"question_id": str(n), "answers": [f"water{n}y"]} for n in range(COUNT)])


def tracks() -> pd.DataFrame:
    rows = [
        {
            "track": "two-hop", "collection": "project", "query_id": f"two-hop/{n}/{phrasing}", "query": f"{start} name{n} was born at which river",
            "split": "dev" if n % 2 else "test", "kind": "bridge", "relevant_ids": [f"painter{n}#0", f"town{n}#0"], "grades": [1, 2],
            "group": f"two-hop/{n}",
        }
        for n in range(COUNT) for phrasing, start in enumerate(("The painter", "Painter"))
    ]  # fmt: skip
    return pd.DataFrame(rows)


class Tfidf:
    """Search by words' tf-idf; ``deaf``: it hears the first six words of a question alone."""

    def __init__(self, deaf: bool = False) -> None:
        own = passages()
        self.deaf, self.ids, self.texts = deaf, own["passage_id"].tolist(), own["text"].tolist()
        self.model = TfidfVectorizer().fit(self.texts)
        self.matrix = self.model.transform(self.texts)

    def vectors(self, texts: list[str]) -> np.ndarray:
        return self.model.transform(texts).toarray()

    def legs(self, queries: list[str], k: int, collection: str = "project") -> dict[str, Hits]:
        return {"words": self.search(queries, k, collection)}

    def search(self, queries: list[str], k: int, collection: str = "project") -> Hits:
        heard = [" ".join(q.split()[:6]) if self.deaf else q for q in queries]
        scores = self.model.transform(heard) @ self.matrix.T
        return [[(self.ids[i], float(row[i])) for i in np.argsort(-row, kind="stable")[:k]] for row in scores.toarray()]


def asking(search: Tfidf) -> Asking:
    own = passages()
    return Asking.over(dict(zip(own["passage_id"], own["text"], strict=True)), search.vectors, search.vectors)


def read(pairs: list[tuple[str, str]]) -> list[tuple[str, float]]:
    """The river of a passage."""
    found = [re.search(r"the river (water\w+)", text) for _, text in pairs]
    return [(match[1], 1.0) if match else ("", 0.0) for match in found]


def study(search: Tfidf, tracks: pd.DataFrame | None = None, **changed: Any) -> StudyResult:
    own = passages(), globals()["tracks"]() if tracks is None else tracks, questions()
    return multi_hop_study(
        *own, search, asking(search), ReaderAnswerer(read), SETTINGS.model_copy(update=changed), seed=0, identities=[], progress=lambda line: None
    )


@pytest.fixture(scope="module")
def result() -> StudyResult:
    return study(Tfidf())


def test_a_second_search_finds_what_the_question_does_not_name(result: StudyResult) -> None:
    assert result.value("evidence__single") == 0.5 and result.value("both__single") == 0.0 == result.value("f1__single")
    for way in WAYS:
        assert result.value(f"both__{way}") == 1.0 == result.value(f"f1__{way}") and result.value(f"kept_of_first__{way}") == 1
    gain = result.metric("evidence_gain__sentence")
    assert gain is not None and gain.value == 0.5 and gain.n == COUNT // 2  # questions: their phrasings are no units
    assert {judge_value(bar, result).verdict for bar in CLAIMS.values()} == {Verdict.PASSED} and len(CLAIMS) == 4
    assert result.tables["by_kind"]["kind"].tolist() == ["all", "bridge"] and len(result.per_example) == COUNT
    assert all(png.startswith(b"\x89PNG") and len(png) < 50_000 for png in result.plots.values())


def test_a_search_that_is_deaf_to_what_was_found_turns_the_claims_red() -> None:
    broken = study(Tfidf(deaf=True))
    assert broken.value("own_gain") < 0.5 * study(Tfidf()).value("own_gain")
    assert broken.value("evidence_gain__sentence") == 0.0 and broken.value("kept_of_first__sentence") == SETTINGS.shown
    verdicts = {metric: judge_value(bar, broken).verdict for metric, bar in CLAIMS.items()}
    assert all(verdicts[f"evidence_gain_low__{way}"] is Verdict.FAILED for way in WAYS)


def test_test_queries_choose_nothing() -> None:
    search, swapped = Tfidf(), tracks()
    swapped.loc[swapped["split"] == "test", "relevant_ids"] = pd.Series([["other0#0", "other1#0"]] * len(swapped))
    own, other = study(search), study(search, swapped)
    assert [own.value(f"kept_of_first__{w}") for w in WAYS] == [other.value(f"kept_of_first__{w}") for w in WAYS] == [1, 1, 1]
    assert other.value("evidence__sentence") < own.value("evidence__sentence")


def test_the_second_questions_by_hand() -> None:
    search, asked = Tfidf(), "The painter name3 was born at which river"
    texts = {"painter3#0": "There is little to tell. The painter name3 was born in town3x.", "other#0": "There is little in it to tell, is there?"}
    one = Asking.over(texts, search.vectors, search.vectors)
    assert one.again("sentence", asked, "painter3#0", SETTINGS) == f"{asked} The painter name3 was born in town3x."
    assert one.again("passage", asked, "painter3#0", SETTINGS.model_copy(update={"words": 5})) == f"{asked} There is little to tell."
    assert one.again("terms", asked, "painter3#0", SETTINGS.model_copy(update={"terms": 1})) == f"{asked} town3x"


@holds(st.permutations(list("abcdef")), st.lists(st.permutations(list("abcxyz")), max_size=3), st.integers(0, 6), st.integers(1, 6))
def test_no_passage_is_shown_twice_and_the_kept_ones_come_first(one: list[str], others: list[list[str]], kept: int, k: int) -> None:
    first, second = ([[(i, -float(n)) for n, i in enumerate(ids)] for ids in lists] for lists in ([one], others))
    shown = Hops([first[0]], [second]).shown(0, kept, k)
    assert len(shown) == len(set(shown)) == k and shown[:kept] == one[: min(kept, k)]
    if not others or kept >= k:
        assert shown == one[:k]


def test_no_queries_of_a_split_is_one_clear_error() -> None:
    with pytest.raises(DataError, match="'two-hop' has no dev queries"):
        asked(passages(), tracks().query("split == 'test'"), "dev")


def test_the_asset_searches_both_indexes_twice(tmp_path: Path) -> None:
    import json

    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    from assets.multi_hop import multi_hop_study as asset
    from resources.build import build_resources
    from tests.crossencoder.tiny import tiny_bert
    from tests.expansion.small import build_small
    from tests.expansion.small import passages as themes
    from tests.lineage import claims_on, given, held

    small, bert = build_small(tmp_path / "small"), tiny_bert(tmp_path)
    AutoModelForQuestionAnswering.from_pretrained(bert).save_pretrained(tmp_path / "reader")
    AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path / "reader")
    (tmp_path / "reader" / "reader.json").write_text(json.dumps({"max_length": 64, "stride": 16, "n_best": 5, "max_tokens": 8}))
    rows = tracks().head(8).assign(query="which of the rivers", relevant_ids=[[f"p{n}", f"p{n + 1}"] for n in range(8)])
    inputs = {
        "passages": themes(), "retrieval_tracks": rows, "two_hop_questions": questions(), "bm25_index": small.bm25, "dense_index": small.dense,
        "qa_reader": ModelArtifact(tmp_path / "reader"),
    }  # fmt: skip
    overrides = {"multi_hop": SETTINGS.model_dump(mode="json"), "retrieval": small.retrieval.model_dump(mode="json")}
    done = dg.materialize(
        [*given(inputs), asset, *claims_on("multi_hop_study")], instance=dg.DagsterInstance.ephemeral(),
        resources=build_resources("starter", tmp_path / "home", overrides=overrides, journal=False), raise_on_error=False,
    )  # fmt: skip
    assert set(held(done, "multi_hop_study")) == set(CLAIMS)
    store = ArtifactStore(str(tmp_path / "home" / "artifacts" / "starter"))
    found = StudyResult.load(store.path(done.output_for_node("multi_hop_study").manifest))
    assert all(np.isfinite(found.value(metric)) for metric in CLAIMS) and [i.role for i in found.identities] == ["encoder"]
