"""Partitioned assets: a row a partition, kept for itself; one that fails takes no other with it; the table shows what never ran."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.lineage import PROFILE_TAG, Lab, lineage_asset
from assets.rows import ROW_MAKERS, own_corpus_row
from curriculum.errors import UserError
from curriculum.profile import load_profile
from curriculum.results import StudyResult
from curriculum.rows.registry import ROW_STUDIES, choose
from curriculum.storage import partition_name
from pipelines.sensors import own_corpora_sensor
from resources.build import build_resources

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
KEYS = ("a", "b", "c")
calls: list[str] = []
broken: set[str] = set()
hungry: set[str] = set()
settings: dict[str, int] = {}


@lineage_asset(
    group="test", partitions=lambda profile: dg.StaticPartitionsDefinition(KEYS), partition_settings=lambda profile, key: settings.get(key, 0)
)
def row(lab: Lab) -> StudyResult:
    """One row: the place of its letter."""
    from curriculum.results import Metric, StudyResult

    calls.append(lab.partition)
    (lab.checkpoints / "begun").write_text(lab.partition)
    if lab.partition in hungry:
        raise MemoryError
    if lab.partition in broken:
        raise ValueError(f"{lab.partition} is broken on purpose")
    return StudyResult(study="row", metrics=[Metric(name="place", value=ord(lab.partition))])


@lineage_asset(group="test", deep=True)
def table(lab: Lab, row: dict[str, StudyResult | None]) -> StudyResult:
    """The rows side by side."""
    from curriculum.rows.comparison import comparison

    return comparison("table", row, by="place")


@pytest.fixture(autouse=True)
def _clean() -> None:
    calls.clear(), broken.clear(), hungry.clear(), settings.clear()


def assets(folder: Path) -> list[Any]:
    return [row(load_profile("starter")), table]


def go(folder: Path, instance: dg.DagsterInstance, key: str | None = None, selection: str = "row", tags: dict[str, str] | None = None) -> Any:
    resources = build_resources("starter", folder, journal=False)
    return dg.materialize(
        assets(folder), selection=selection, resources=resources, instance=instance, partition_key=key, tags=tags, run_config=QUIET,
        raise_on_error=False,
    )  # fmt: skip


def span(folder: Path, instance: dg.DagsterInstance) -> Any:
    """All partitions in one run, as ``dagster asset materialize --partition-range a...c`` makes it."""
    return go(folder, instance, tags={"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "c"})


def store_of(folder: Path) -> Any:
    return build_resources("starter", folder, journal=False)["artifacts"].store()


def made(folder: Path) -> set[str]:
    return {key for key in KEYS if store_of(folder).manifest(f"row/{key}")}


def states(folder: Path) -> dict[str, str]:
    store = store_of(folder)
    rows = StudyResult.load(store.path(store.manifest("table"))).tables["rows"]
    return dict(zip(rows["row"], rows["state"], strict=True))


def test_a_partition_is_made_and_reused_for_itself(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert go(tmp_path, instance, "a").success and made(tmp_path) == {"a"}
        again = go(tmp_path, instance, "a")
        assert again.success and calls == ["a"]
        (event,) = again.asset_materializations_for_node("row")
        assert event.partition == "a" and event.metadata["reused"].value is True and event.metadata["metric/place"].value == 97.0
        assert go(tmp_path, instance, "b").success and calls == ["a", "b"]
        settings["a"] = 1  # what only this row reads
        assert go(tmp_path, instance, "a").success and go(tmp_path, instance, "b").success
        assert calls == ["a", "b", "a"] and len(store_of(tmp_path).versions("row/a")) == 2


def test_a_range_is_one_run_with_what_each_partition_measured(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = span(tmp_path, instance)
        assert result.success and calls == list(KEYS) and len(instance.get_runs()) == 1
        shown = {e.partition: e.metadata["metric/place"].value for e in result.asset_materializations_for_node("row")}
        assert shown == {"a": 97.0, "b": 98.0, "c": 99.0}


def test_a_partition_that_fails_leaves_the_others_and_the_next_run_makes_only_it(tmp_path: Path) -> None:
    broken.add("b")
    with dg.DagsterInstance.ephemeral() as instance:
        result = span(tmp_path, instance)
        assert not result.success and made(tmp_path) == {"a", "c"}
        assert instance.get_materialized_partitions(dg.AssetKey("row")) == {"a", "c"}
        error = next(e for e in result.all_events if e.event_type_value == "STEP_FAILURE").event_specific_data.error.to_string()
        assert "1 of 3 partitions failed and 2 are made and kept; run again b: b: b is broken on purpose" in error
        assert go(tmp_path, instance, selection="table").success
        assert states(tmp_path) == {"a": "measured", "b": "not run", "c": "measured"}
        broken.clear()
        assert span(tmp_path, instance).success and calls == ["a", "b", "c", "b"]
        assert go(tmp_path, instance, selection="table").success
        assert set(states(tmp_path).values()) == {"measured"}


@pytest.mark.parametrize(("where", "attempts"), [(broken, 3), (hungry, 1)], ids=["an ordinary error", "out of memory"])
def test_a_range_is_tried_again_unless_memory_ran_out(tmp_path: Path, where: set[str], attempts: int) -> None:
    where.add("b")
    job = dg.define_asset_job("job", selection="row", op_retry_policy=dg.RetryPolicy(max_retries=2))
    defs = dg.Definitions(assets=assets(tmp_path), jobs=[job], resources=build_resources("starter", tmp_path, journal=False))
    tags = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "c"}
    with dg.DagsterInstance.ephemeral() as instance:
        result = defs.resolve_job_def("job").execute_in_process(instance=instance, run_config=QUIET, raise_on_error=False, tags=tags)
    assert not result.success and calls.count("b") == attempts and made(tmp_path) == {"a", "c"}


def test_a_table_without_rows_says_so(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = go(tmp_path, instance, selection="table")
    assert not result.success
    assert "'table' has no rows yet" in next(e for e in result.all_events if e.event_type_value == "STEP_FAILURE").event_specific_data.error.to_string()


def test_a_run_asked_for_under_another_profile_is_refused(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = go(tmp_path, instance, "a", tags={PROFILE_TAG: "mine"})
    error = next(e for e in result.all_events if e.event_type_value == "STEP_FAILURE").event_specific_data.error.to_string()
    assert not result.success and calls == [] and "asked for under the profile 'mine', and the daemon that started it has 'starter'" in error


def test_what_is_written_of_a_partition_stays_in_its_folder() -> None:
    assert partition_name("row", "") == "row" and partition_name("row", "two-hop") == "row/two-hop"
    for wrong in ("../other", "a/b", "..", ".hidden"):
        with pytest.raises(UserError, match="no plain folder name"):
            partition_name("row", wrong)


def test_every_row_study_has_a_maker_a_table_and_a_job_of_its_own() -> None:
    from pipelines.definitions import build_definitions
    from pipelines.jobs import GROUPS, rows_job

    assert ROW_MAKERS.keys() == ROW_STUDIES.keys()
    for profile in ("starter", "workstation"):
        defs, loaded = build_definitions(profile), load_profile(profile)
        graph, rows = defs.resolve_asset_graph(), set()
        for asset, study in ROW_STUDIES.items():
            job = defs.resolve_job_def(rows_job(asset))
            assert job.partitions_def is not None and {k.to_user_string() for k in job.asset_layer.selected_asset_keys} == {asset}
            assert job.backfill_policy == dg.BackfillPolicy.multi_run(1)  # and a range of them in one run by ``dagster asset materialize``
            assert graph.get(dg.AssetKey(asset)).backfill_policy == dg.BackfillPolicy.single_run()
            if not study.dynamic:
                assert list(job.partitions_def.get_partition_keys()) == study.keys(loaded)
            assert graph.get(dg.AssetKey(study.table)).parent_keys == {dg.AssetKey(asset)}
            rows |= {asset, study.table}
        for name in ("lineage", *GROUPS):
            assert not rows & {k.to_user_string() for k in defs.resolve_job_def(name).asset_layer.selected_asset_keys}, name


def test_the_rows_of_the_registry_are_what_the_library_can_do() -> None:
    from curriculum.prompting.patterns import PATTERNS
    from curriculum.retrieval.measure import SYSTEMS
    from curriculum.rows.decoding import _WAYS

    starter, workstation = load_profile("starter"), load_profile("workstation")
    assert set(ROW_STUDIES["fusion_row"].keys(starter)) == set(SYSTEMS)
    assert set(ROW_STUDIES["prompt_pattern_row"].keys(starter)) == set(PATTERNS)
    assert set(ROW_STUDIES["decoding_row"].keys(starter)) == set(_WAYS)
    assert ROW_STUDIES["retrieval_track_row"].keys(workstation) == ["notes", "two-hop", "known-item", "FiQA2018", "NQ"]
    assert set(ROW_STUDIES["embedding_model_row"].keys(workstation)) >= {"minilm", "e5-small", "bge-small"}


def test_partitions_are_chosen_by_name_in_the_tables_order() -> None:
    assert choose(["a", "b", "c"], "c, a") == ["a", "c"]
    with pytest.raises(UserError, match='no partition "d"; there are a, b, c'):
        choose(["a", "b", "c"], "a,d")
    with pytest.raises(UserError, match="no partition is named"):
        choose(["a"], " , ")


SENTENCES = {
    "heron": "The grey heron stands in shallow water for hours.", "otter": "An otter needs a clean river with steep banks.",
    "birch": "Birch trees are the first to grow on bare ground.", "moss": "Moss holds many times its own weight in water.",
    "lynx": "A lynx hunts hares at dusk in deep forests.", "trout": "Brown trout lay eggs in gravel in late autumn.",
    "fern": "Ferns spread by spores and never carry any seeds.", "adder": "The adder warms itself on stones in early spring.",
}  # fmt: skip


def corpus(folder: Path, count: int = len(SENTENCES)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, sentence in list(SENTENCES.items())[:count]:
        rest = f"Of the {name} one reads in old field books. It was drawn, counted and described every year, and the {name} is still seen there today."
        (folder / f"{name}.md").write_text(f"# {name.title()}\n\n{sentence} {rest}\n")
    return folder


def test_a_corpus_of_ones_own_is_measured_and_a_poor_one_says_what_it_lacks(tmp_path: Path) -> None:
    corpus(tmp_path / "own" / "birds"), corpus(tmp_path / "own" / "few", 2)
    overrides = {"rows": {"corpora_folder": f"path:{tmp_path / 'own'}"}}
    resources = build_resources("starter", tmp_path / "home", journal=False, overrides=overrides)
    maker = own_corpus_row(load_profile("starter"))
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("own_corpora", ["birds", "few"])
        made = {
            name: dg.materialize([maker], partition_key=name, resources=resources, instance=instance, run_config=QUIET, raise_on_error=False)
            for name in ("birds", "few")
        }
    assert made["birds"].success and not made["few"].success
    error = next(e for e in made["few"].all_events if e.event_type_value == "STEP_FAILURE").event_specific_data.error.to_string()
    assert "the corpus 'few' gives 2 known items and needs 4" in error
    store = resources["artifacts"].store()
    result = StudyResult.load(store.path(store.manifest("own_corpus_row/birds")))
    asked = result.per_example
    assert len(asked) and set(asked["track"]) == {"birds"} and result.value("ndcg_at_10") > 0.2
    assert "8 passages and 8 queries" in result.remarks[0]


def test_a_new_corpus_is_a_new_partition_and_only_it_runs(tmp_path: Path) -> None:
    corpus(tmp_path / "own" / "one", 2)
    sensor = own_corpora_sensor(load_profile("starter", {"rows": {"corpora_folder": f"path:{tmp_path / 'own'}"}}))
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance=instance)
        first = sensor(context)
        assert [r.partition_key for r in first.run_requests] == ["one"] and first.dynamic_partitions_requests[0].partition_keys == ["one"]
        assert isinstance(sensor(dg.build_sensor_context(instance=instance, cursor=first.cursor)), dg.SkipReason)
        corpus(tmp_path / "own" / "two", 2)
        second = sensor(dg.build_sensor_context(instance=instance, cursor=first.cursor))
        assert [r.partition_key for r in second.run_requests] == ["two"]
        (tmp_path / "own" / "one").rename(tmp_path / "elsewhere")
        third = sensor(dg.build_sensor_context(instance=instance, cursor=second.cursor))
        assert not third.run_requests and third.dynamic_partitions_requests[0].partition_keys == ["one"]


def test_a_folder_that_cannot_name_a_partition_and_a_link_that_leads_out(tmp_path: Path) -> None:
    corpus(tmp_path / "own" / "fine", 1), corpus(tmp_path / "outside", 1)
    (tmp_path / "own" / "link").symlink_to(tmp_path / "outside")
    profile = load_profile("starter", {"rows": {"corpora_folder": f"path:{tmp_path / 'own'}"}})
    with pytest.raises(UserError, match="own/link is a symbolic link to .*outside, outside"):
        ROW_STUDIES["own_corpus_row"].keys(profile)
    (tmp_path / "own" / "link").unlink()
    assert ROW_STUDIES["own_corpus_row"].keys(profile) == ["fine"]
    corpus(tmp_path / "own" / "two words", 1)
    with pytest.raises(UserError, match="'two words' cannot name a row"):
        ROW_STUDIES["own_corpus_row"].keys(profile)
