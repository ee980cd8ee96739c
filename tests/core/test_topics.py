"""The topic table: every topic is there, what it says of a claim is what the gate says, and it can be read at 120 columns."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from curriculum.cli import app
from curriculum.errors import UserError
from curriculum.evaluation.gate import Verdict, active_bars
from curriculum.profile import Profile, load_profile
from curriculum.report.card import judgements, write_card
from curriculum.report.readme import recorded_judgements
from curriculum.report.topics import TopicRow, as_records, tally, topic_rows
from curriculum.results import Metric, StudyResult
from curriculum.storage import ArtifactStore, Manifest
from curriculum.syllabus import Syllabus, load_syllabus

STARTER, SYLLABUS = load_profile("starter"), load_syllabus()
BAR = next(c for c in SYLLABUS.claims if c.asset == "weight_bridges" and c.topic == "t5")


def put(store: ArtifactStore, asset: str, *metrics: Metric) -> None:
    with store.staging(asset) as staged:
        StudyResult(study=asset, metrics=list(metrics)).save(staged)
        version = f"v{len(store.versions(asset))}"
        store.publish(staged, Manifest(asset=asset, version=version, key=version, kind="result"))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
    monkeypatch.setenv("CURRICULUM_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "120")
    return ArtifactStore(str(tmp_path / "artifacts" / "starter"))


def rows(store: ArtifactStore, part: str = "foundations") -> dict[str, TopicRow]:
    return {row.topic.id: row for row in topic_rows(SYLLABUS, STARTER, judgements(SYLLABUS, STARTER, store), part)}


def printed(*options: str) -> str:
    done = CliRunner().invoke(app, ["topics", *options])
    assert done.exit_code == 0, done.output
    return done.output


def test_every_topic_of_a_part_is_there_with_or_without_a_claim(store: ArtifactStore) -> None:
    topics = next(part for part in SYLLABUS.parts if part.id == "foundations").topics
    assert list(rows(store)) == [topic.id for topic in topics] and len(topics) == 19
    text = printed("--part", "foundations")
    assert all(re.search(rf"\b{topic.id}\b", text) for topic in topics) and "19 topics" in text
    claimed = {claim.topic for claim in SYLLABUS.claims} | {b.topic for m in SYLLABUS.roadmap for b in m.bars if b.topic}
    silent = {name for name, row in rows(store).items() if row.verdict == "no claim yet"}
    assert silent == {topic.id for topic in topics} - claimed
    assert {record["topic"] for record in json.loads(printed("--json"))} == set(SYLLABUS.topics())


def test_the_table_says_what_the_gate_says_of_every_bar_in_force(store: ArtifactStore) -> None:
    put(store, "weight_bridges", Metric(name=BAR.metric, value=5e-5), Metric(name="max_abs_error__gpt2", value=0.5))
    held = judgements(SYLLABUS, STARTER, store)
    shown = {c.check: c for row in topic_rows(SYLLABUS, STARTER, held) for c in row.claims}
    assert set(held) <= set(shown)  # no bar in force is left out
    assert {name: shown[name].judgement for name in held} == held
    assert all(claim.judgement.verdict is Verdict.NOT_RUN for name, claim in shown.items() if name not in held)


@pytest.mark.parametrize(
    ("value", "verdict", "text"), [(5e-5, "PASSED", "5e-05 [1e-05, 0.0001]"), (0.5, "FAILED", "0.5 [1e-05, 0.0001]"), (math.nan, "FAILED", "nan")]
)
def test_a_claim_has_its_value_with_the_interval_its_bar_and_its_verdict(store: ArtifactStore, value: float, verdict: str, text: str) -> None:
    put(store, "weight_bridges", Metric(name=BAR.metric, value=value, low=1e-5, high=1e-4))
    claim = next(c for c in rows(store)["t5"].claims if c.judgement.bar == BAR)
    assert (claim.value.startswith(text), claim.bar, claim.verdict) == (True, BAR.text(), verdict)
    assert rows(store)["t5"].verdict == ("FAILED" if verdict == "FAILED" else "MISSING")  # its other claim has no number yet


def test_an_asset_never_made_is_not_run_and_a_metric_it_lacks_is_missing(store: ArtifactStore) -> None:
    assert rows(store)["t5"].verdict == "NOT RUN"
    put(store, "weight_bridges")
    assert rows(store)["t5"].verdict == "MISSING"
    assert f"MISSING: claim_weight_bridges_{BAR.metric}" in printed("--part", "foundations")


def test_a_stand_in_holds_a_floor_and_never_passes_its_topic(store: ArtifactStore) -> None:
    put(store, "qa_report", Metric(name="f1", value=0.99))
    alone = SYLLABUS.model_copy(update={"claims": [claim for claim in SYLLABUS.claims if claim.topic != "full_finetuning"]})

    def row_under(profile: Profile) -> TopicRow:
        return next(r for r in topic_rows(alone, profile, judgements(alone, profile, store)) if r.topic.id == "full_finetuning")

    row = row_under(STARTER)
    assert [(c.kind, c.verdict) for c in row.claims] == [("floor", "floor held"), ("milestone", "NOT RUN")]
    assert row.verdict == "NOT RUN" and row.claims[0].bar.endswith(", floor")
    reference = load_profile("starter", {"milestones": {"reader": {"kind": "reference", "measured_on": "SQuAD"}}, "floors": []})
    row = row_under(reference)
    assert row.verdict == "PASSED" and [c.kind for c in row.claims] == ["milestone"]


def test_the_columns_are_aligned_and_fit_120_columns(store: ArtifactStore) -> None:
    low = Metric(name="perplexity_change", value=-0.2293, low=-0.256, high=-0.2002)
    put(store, "adapter_report", low, Metric(name="ledger_error", value=0.9), Metric(name="peak_memory_gb", value=1.4))
    for part in SYLLABUS.parts:
        lines = printed("--part", part.id).splitlines()
        assert max(map(len, lines)) <= 120
        cells = [line for line in lines if re.match(r"   ?\w", line) and re.search(r"(PASSED|FAILED|MISSING|NOT RUN|floor held|no claim yet) *$", line)]
        assert len({re.search(r"(PASSED|FAILED|MISSING|NOT RUN|floor held|no claim yet) *$", line).start() for line in cells}) <= 1
        names = [claim.metric for row in rows(store, part.id).values() for claim in row.claims]
        assert all(any(line.startswith(f"   {name} ") for line in cells) for name in names)  # no name is folded


def test_an_unknown_part_is_one_error_that_names_the_parts(store: ArtifactStore) -> None:
    with pytest.raises(UserError, match="^unknown part 'foundation': choose one of foundations, finetuning, prompting, "):
        topic_rows(SYLLABUS, STARTER, {}, "foundation")
    done = CliRunner().invoke(app, ["topics", "--part", "foundation"])
    assert isinstance(done.exception, UserError) and "electives" in str(done.exception)


def test_a_floor_that_names_no_topic_of_the_syllabus_is_an_error_and_one_that_names_none_is_left_out(store: ArtifactStore) -> None:
    wrong = load_profile("starter", {"floors": [{"asset": "qa_report", "metric": "f1", "min": 0.1, "topic": "reeding"}]})
    with pytest.raises(UserError, match=r"the floor on qa_report\.f1 names a topic or milestone that the syllabus does not have"):
        topic_rows(SYLLABUS, wrong, judgements(SYLLABUS, wrong, store))
    free = load_profile("starter", {"floors": [{"asset": "qa_report", "metric": "f1", "min": 0.1}]})
    shown = [claim.check for row in topic_rows(SYLLABUS, free, judgements(SYLLABUS, free, store)) for claim in row.claims]
    assert "floor_qa_report_f1" not in shown
    roadmap = [m.model_dump() for m in SYLLABUS.roadmap]
    roadmap[0]["bars"][0]["topic"] = "self_atention"
    with pytest.raises(ValueError, match="self_atention"):
        Syllabus.model_validate(SYLLABUS.model_dump() | {"roadmap": roadmap})


def test_the_report_card_has_the_same_table(store: ArtifactStore, tmp_path: Path) -> None:
    put(store, "weight_bridges", *(Metric(name=c.metric, value=0.0) for c in SYLLABUS.claims if c.asset == "weight_bridges" and c.topic == "t5"))
    page = write_card(SYLLABUS, STARTER, store, tmp_path / "card.html").read_text()
    section = page[page.index("<h2>Topics</h2>") : page.index("<h2>Checks</h2>")]
    assert all(topic.title.replace("&", "&amp;") in section for topic in SYLLABUS.topics().values())
    assert section.count("no claim yet</td>") == sum(row.verdict == "no claim yet" for part in SYLLABUS.parts for row in rows(store, part.id).values())
    assert section.count('class="passed">PASSED') == 2 and section.index("Architectures") < section.index("Electives")
    assert tally(topic_rows(SYLLABUS, STARTER, judgements(SYLLABUS, STARTER, store))) in section


def test_a_record_gives_the_same_rows_and_a_newer_bar_is_not_run(store: ArtifactStore) -> None:
    bars = active_bars(SYLLABUS, STARTER)
    name = f"claim_weight_bridges_{BAR.metric}"
    held = recorded_judgements({"checks": {name: ["passed", 5e-5]}}, bars)
    assert set(held) == set(bars)
    (record,) = [r for r in as_records(topic_rows(SYLLABUS, STARTER, held, "foundations")) if r["topic"] == "t5"]
    assert [(c["check"] == name, c["value"], c["verdict"]) for c in record["claims"]] == [(True, 5e-5, "PASSED"), (False, None, "NOT RUN")]
