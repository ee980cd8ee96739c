"""How an asset of this project is made: a plain function of its inputs, plus a ``Lab`` with everything it may use.

``lineage_asset`` gives the function reuse (code version + settings + input versions), a place to write that is published
atomically, checkpoints that survive a kill, metering, and the record of the run. A partitioned one has all of that a partition.
"""

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from assets.memory import Item, never_retried
from curriculum.code_version import code_version
from curriculum.errors import MemoryLimitError, UserError
from curriculum.hardware import Cost, resolve_device
from curriculum.limits import out_of_memory
from curriculum.results import Identity, RunRecord, StudyResult
from curriculum.sources import local_sources, promoted_sources
from curriculum.storage import ArtifactStore, Manifest, digest_of, partition_name
from resources.artifact_store import Stored, kind_of, metadata_of, write_value
from resources.compute import Session

# another interpreter or another library version may give another result, so neither reuses this one's
_ENVIRONMENT = digest_of([sys.version, (Path(__file__).parents[1] / "requirements.lock").read_text(encoding="utf-8")])
RESOURCES = {"settings", "compute", "models", "datasets", "artifacts", "journal", "generator"}
OWNERS = ["team:curriculum"]
# retraining is weekly: what is a day late turns yellow in the UI, what is two days late red
FRESH = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=9), warn_window=timedelta(days=8))
DEEP = {"depth": "deep"}  # the tag of a study too long for the lineage: it runs under its group's job
PROFILE_TAG = "curriculum/profile"  # of a run: the profile that whoever asked for it meant


@dataclass(frozen=True)
class Lab:
    """What an asset body may use beside its inputs. ``versions`` are those of its inputs, by asset."""

    settings: Any
    profile: Any
    out: Path
    checkpoints: Path
    device: str
    progress: Callable[[str], None]
    resources: Any
    versions: Mapping[str, str]
    partition: str = ""

    @property
    def seed(self) -> int:
        return self.profile.seed

    @property
    def compute(self) -> Any:
        return self.resources.compute

    def model(self, uri: str) -> Path:
        """A local folder of the model source ``uri``."""
        return self.resources.models.folder(uri)

    def pinned(self, uri: str) -> str:
        """The model source ``uri``; where it is a promoted model, with the version in force. What is built by a model names it so."""
        return self.resources.models.pinned(uri)

    def dataset(self, uri: str) -> Path:
        """A local file or folder of the data source ``uri``."""
        return self.resources.datasets.folder(uri)

    def identity(self, uri: str, role: str) -> Identity:
        """The identity of a model source (role ``model`` or starting with it) or of a data source."""
        store = self.resources.models if role.startswith(("model", "base", "encoder")) else self.resources.datasets
        return store.identity(uri, role)

    def generator(self) -> Any:
        """The profile's text generator."""
        return self.resources.generator.get()


@dataclass(frozen=True)
class PerProfile:
    """A partitioned asset, whose partitions a profile decides: call it with one."""

    define: Callable[[dg.PartitionsDefinition], dg.AssetsDefinition]
    partitions: Callable[[Any], dg.PartitionsDefinition]

    def __call__(self, profile: Any) -> dg.AssetsDefinition:
        return self.define(self.partitions(profile))


def lineage_asset(
    *,
    group: str,
    settings: str | tuple[str, ...] = (),
    kinds: Iterable[str] = (),
    topics: Iterable[str] = (),
    pool: str | None = None,
    name: str | None = None,
    deps: Iterable[str] = (),
    deep: bool = False,
    ledger: Callable[[Lab], list[Item]] | None = None,
    partitions: Callable[[Any], dg.PartitionsDefinition] | None = None,
    partition_settings: Callable[[Any, str], Any] = lambda profile, partition: None,
) -> Callable[[Callable[..., Any]], Any]:
    """Make a Dagster asset of ``body(lab, *inputs)``; the inputs' names are the upstream assets.

    ``settings`` names the profile sections the body reads: they are part of what a result is reused by. The first one is
    ``lab.settings``. ``deps`` are upstream assets that are waited for but not read. ``deep`` leaves the asset out of the lineage's job.
    ``ledger`` predicts what the body's memory goes to: (part, bytes) each. It is asked when memory has run out.

    ``partitions`` gives the asset's partitions under a profile; what is made is then a :class:`PerProfile`. The body runs once a
    partition, which is ``lab.partition``; an input that is partitioned comes as ``{partition: value, or None where it never ran}``.
    ``partition_settings`` (profile, partition) is what one partition reads beside ``settings``: only a change of it computes that one again.
    A range of partitions is one run, in which one that fails does not keep the others from being made.
    """
    sections = (settings,) if isinstance(settings, str) else tuple(settings)

    def decorate(body: Callable[..., Any]) -> Any:
        inputs = list(inspect.signature(body).parameters)[1:]
        version = code_version(body)

        def define(partitions_def: dg.PartitionsDefinition | None = None) -> dg.AssetsDefinition:
            @dg.asset(
                name=name or body.__name__,
                description=inspect.getdoc(body),
                group_name=group,
                kinds=set(kinds),
                owners=OWNERS,
                freshness_policy=None if partitions_def else FRESH,
                tags={f"topic/{topic}": "" for topic in topics} | (DEEP if deep or partitions_def else {}),
                ins={upstream: dg.AssetIn() for upstream in inputs},
                deps=list(deps),
                code_version=version,
                pool=pool,
                required_resource_keys=RESOURCES,
                partitions_def=partitions_def,
                backfill_policy=dg.BackfillPolicy.single_run() if partitions_def else None,
            )
            def compute(context: dg.AssetExecutionContext, **values: Any) -> dg.Output:
                job = _Job(context, body, sections, version, values, partition_settings, ledger)
                return job.partitions() if partitions_def else job.whole()

            return compute

        return define() if partitions is None else PerProfile(define, partitions)

    return decorate


@dataclass(frozen=True)
class _Job:
    """One execution of an asset: what is to be computed, from what."""

    context: dg.AssetExecutionContext
    body: Callable[..., Any]
    sections: tuple[str, ...]
    version: str
    values: dict[str, Any]
    partition_settings: Callable[[Any, str], Any]
    ledger: Callable[[Lab], list[Item]] | None = None

    def whole(self) -> dg.Output[Stored]:
        """The asset without partitions."""
        stored = _materialise(self, "")
        return dg.Output(stored, data_version=dg.DataVersion(stored.manifest.digest))

    def partitions(self) -> dg.Output[dict[str, Stored]]:
        """Every partition of the run, each for itself.

        Raises:
            UserError: some failed; the finished ones are kept and shown. Or the run was asked for under another profile.
            dg.Failure: some failed, and one of them because memory ran out: the run is not tried again.
        """
        self._refuse_another_profile()
        context, made, failed = self.context, {}, dict[str, Exception]()
        for partition in context.partition_keys:
            try:
                made[partition] = _materialise(self, partition)
            except Exception as error:
                if len(context.partition_keys) == 1:
                    raise
                context.log.error("%s: %s", partition, error)
                failed[partition] = error
        store = context.resources.artifacts.store()
        shown = {key: {**metadata_of(s.manifest, store.path(s.manifest)), "reused": s.reused} for key, s in made.items()}
        if failed:
            for partition, metadata in shown.items():
                store.point(made[partition].manifest)
                context.log_event(dg.AssetMaterialization(context.asset_key, partition=partition, metadata=metadata))
            said = (
                f"{len(failed)} of {len(context.partition_keys)} partitions failed and {len(made)} are made and kept; run again "
                f"{','.join(failed)}: " + "; ".join(f"{key}: {error}" for key, error in failed.items())
            )
            if any(isinstance(error, dg.Failure) and not error.allow_retries for error in failed.values()):
                raise dg.Failure(said, allow_retries=False)  # the one that ran out of memory would again
            raise UserError(said)
        for partition, metadata in shown.items():
            context.add_asset_metadata(metadata, partition_key=partition)
        digests = {key: stored.manifest.digest for key, stored in made.items()}
        only = next(iter(digests.values())) if len(digests) == 1 else digest_of(digests)
        return dg.Output(made, data_version=dg.DataVersion(only))

    def _refuse_another_profile(self) -> None:
        asked, present = self.context.run.tags.get(PROFILE_TAG), self.context.resources.settings.value.name
        if asked and asked != present:
            raise UserError(
                f"this run was asked for under the profile '{asked}', and the daemon that started it has '{present}': "
                "stop that daemon (the one of `make ui`), or start it with the same profile"
            )


def _materialise(job: _Job, partition: str) -> Stored:
    context, resources = job.context, job.context.resources
    asset = partition_name(context.asset_key.path[-1], partition)
    store, profile = resources.artifacts.store(), resources.settings.value
    inputs = {name: _input_digest(store, name, value) for name, value in job.values.items()}
    made_from = _versions(store, job.values)  # now: by the time this one is made, another version may have been promoted
    sections_json = {name: _plain(getattr(profile, name)) for name in job.sections}
    if partition:
        sections_json["partition"] = _plain(job.partition_settings(profile, partition))
    sources = {uri: resources.datasets.identity(uri, "").digest for uri in local_sources(sections_json)}
    sources |= {uri: resources.models.identity(uri, "").digest for uri in promoted_sources(sections_json)}
    key = digest_of([asset, job.version, _ENVIRONMENT, sections_json, sources, profile.seed, profile.compute.precision, inputs])[:24]
    reused = None if resources.artifacts.fresh else store.find(asset, key)
    if reused is not None:
        context.log.info("%s: reused version %s", asset, reused.version)
        return Stored(reused, reused=True)
    lab: Lab | None = None
    try:
        with _session(job, asset) as session, store.staging(asset) as staged:
            lab = _lab(job, asset, partition, staged, store.checkpoints(asset, key), session, made_from)
            value = job.body(lab, **job.values)
            session.check()  # before anything is published
            return Stored(_publish(job, asset, store, staged, value, session.cost, key, inputs, made_from))
    except (MemoryError, RuntimeError, MemoryLimitError) as error:
        if not out_of_memory(error):
            raise
        known = job.ledger(lab) if job.ledger and lab else None
        never_retried(context, asset, error, known, job.values, job.sections)


def _session(job: _Job, asset: str) -> AbstractContextManager[Session]:
    context = job.context
    return context.resources.compute.session(holder=context.run_id, progress=lambda line: context.log.info("%s: %s", asset, line))


def _lab(
    job: _Job, asset: str, partition: str, out: Path, checkpoints: Path, session: Session, versions: Mapping[str, str]
) -> Lab:
    resources = job.context.resources
    profile = resources.settings.value

    def progress(line: str) -> None:
        job.context.log.info("%s: %s", asset, line)
        session.check()

    return Lab(
        settings=getattr(profile, job.sections[0]) if job.sections else None,
        profile=profile,
        out=out,
        checkpoints=checkpoints,
        device=resolve_device(profile.compute.device),
        progress=progress,
        resources=resources,
        versions=versions,
        partition=partition,
    )


def _input_digest(store: ArtifactStore, name: str, value: Any) -> str:
    if isinstance(value, dict):  # a partitioned input
        return digest_of({partition: _input_digest(store, partition_name(name, partition), None) for partition in value})
    manifest = store.manifest(name)
    return manifest.digest if manifest else ""


def _versions(store: ArtifactStore, values: dict[str, Any]) -> dict[str, str]:
    """input -> the version it is; a partition of an input is named ``input/partition``."""
    names = [partition_name(name, key) for name, value in values.items() for key in (value if isinstance(value, dict) else [""])]
    return {name: manifest.version for name in names if (manifest := store.manifest(name))}


def _publish(
    job: _Job, asset: str, store: ArtifactStore, staged: Path, value: Any, cost: Cost, key: str, inputs: dict[str, str],
    made_from: dict[str, str],
) -> Manifest:  # fmt: skip
    resources, run_id = job.context.resources, job.context.run_id
    profile = resources.settings.value
    cost.stop()
    if isinstance(value, StudyResult):
        value.run = _record(cost, profile, job.version, resources)
    if getattr(value, "path", staged) != staged:
        raise UserError(f"asset '{asset}' returned files outside lab.out ({value.path}); write them under lab.out")
    write_value(value, staged)
    taken = {m.version for m in store.versions(asset)}  # a version that was damaged is made again under its name: promotions name it
    unique = key if key not in taken else f"{key}-{run_id[:6]}"
    manifest = store.publish(
        staged,
        Manifest(
            asset=asset, version=unique, key=key, kind=kind_of(value), code_version=job.version, profile=profile.name,
            inputs=inputs, made_from=made_from, facts=dict(getattr(value, "facts", {}) or {}), seconds=cost.wall_seconds,
        ),
    )
    if isinstance(value, StudyResult):
        resources.journal.record(value, run_id=run_id, version=manifest.version)
    return manifest


def _record(cost: Cost, profile: Any, version: str, resources: Any) -> RunRecord:
    import torch

    return RunRecord(
        profile=profile.name,
        code_version=version,
        hardware=resources.compute.hardware(),
        threads=torch.get_num_threads(),
        wall_seconds=cost.wall_seconds,
        cpu_seconds=cost.cpu_seconds,
        peak_memory_bytes=cost.peak_memory_bytes,
        started_at=cost.started_at,
    )


def _plain(section: Any) -> Any:
    """A profile section as JSON-able data, whatever mixture of models, lists and dicts it is."""
    if hasattr(section, "model_dump"):
        return section.model_dump(mode="json")
    if isinstance(section, dict):
        return {key: _plain(value) for key, value in section.items()}
    return [_plain(value) for value in section] if isinstance(section, list | tuple) else section
