"""How an asset of this project is made: a plain function of its inputs, plus a ``Lab`` with everything it may use.

``lineage_asset`` gives the function reuse (code version + settings + input versions), a place to write that is published
atomically, checkpoints that survive a kill, metering, and the record of the run.
"""

import inspect
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from curriculum.code_version import code_version
from curriculum.errors import UserError
from curriculum.hardware import Cost, resolve_device
from curriculum.results import Identity, RunRecord, StudyResult
from curriculum.sources import local_sources
from curriculum.storage import ArtifactStore, Manifest, digest_of
from resources.artifact_store import Stored, kind_of, write_value

# another interpreter or another library version may give another result, so neither reuses this one's
_ENVIRONMENT = digest_of([sys.version, (Path(__file__).parents[1] / "requirements.lock").read_text(encoding="utf-8")])
RESOURCES = {"settings", "compute", "models", "datasets", "artifacts", "journal", "generator"}
OWNERS = ["team:curriculum"]
# retraining is weekly: what is a day late turns yellow in the UI, what is two days late red
FRESH = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=9), warn_window=timedelta(days=8))
DEEP = {"depth": "deep"}  # the tag of a study too long for the lineage: it runs under its group's job


@dataclass(frozen=True)
class Lab:
    """What an asset body may use beside its inputs."""

    settings: Any
    profile: Any
    out: Path
    checkpoints: Path
    device: str
    progress: Callable[[str], None]
    resources: Any

    @property
    def seed(self) -> int:
        return self.profile.seed

    @property
    def compute(self) -> Any:
        return self.resources.compute

    def model(self, uri: str) -> Path:
        """A local folder of the model source ``uri``."""
        return self.resources.models.folder(uri)

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
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Make a Dagster asset of ``body(lab, *inputs)``; the inputs' names are the upstream assets.

    ``settings`` names the profile sections the body reads: they are part of what a result is reused by. The first one is
    ``lab.settings``. ``deps`` are upstream assets that are waited for but not read. ``deep`` leaves the asset out of the lineage's job.
    """
    sections = (settings,) if isinstance(settings, str) else tuple(settings)

    def decorate(body: Callable[..., Any]) -> dg.AssetsDefinition:
        inputs = list(inspect.signature(body).parameters)[1:]
        version = code_version(body)

        @dg.asset(
            name=name or body.__name__,
            description=inspect.getdoc(body),
            group_name=group,
            kinds=set(kinds),
            owners=OWNERS,
            freshness_policy=FRESH,
            tags={f"topic/{topic}": "" for topic in topics} | (DEEP if deep else {}),
            ins={upstream: dg.AssetIn() for upstream in inputs},
            deps=list(deps),
            code_version=version,
            pool=pool,
            required_resource_keys=RESOURCES,
        )
        def compute(context: dg.AssetExecutionContext, **values: Any) -> dg.Output:
            return _materialise(context, body, sections, version, values)

        return compute

    return decorate


def _materialise(
    context: dg.AssetExecutionContext, body: Callable[..., Any], sections: tuple[str, ...], version: str, values: dict[str, Any]
) -> dg.Output[Stored]:
    resources, asset = context.resources, context.asset_key.path[-1]
    store, profile = resources.artifacts.store(), resources.settings.value
    inputs = {name: _input_digest(store, name) for name in values}
    sections_json = {name: _plain(getattr(profile, name)) for name in sections}
    sources = {uri: resources.datasets.identity(uri, "").digest for uri in local_sources(sections_json)}
    key = digest_of([asset, version, _ENVIRONMENT, sections_json, sources, profile.seed, profile.compute.precision, inputs])[:24]
    reused = None if resources.artifacts.fresh else store.find(asset, key)
    if reused is not None:
        context.log.info("%s: reused version %s", asset, reused.version)
        return dg.Output(Stored(reused, reused=True), data_version=dg.DataVersion(reused.digest))
    with resources.compute.session() as cost, store.staging(asset) as staged:
        lab = Lab(
            settings=getattr(profile, sections[0]) if sections else None,
            profile=profile,
            out=staged,
            checkpoints=store.checkpoints(asset, key),
            device=resolve_device(profile.compute.device),
            progress=lambda line: context.log.info("%s: %s", asset, line),
            resources=resources,
        )
        value = body(lab, **values)

        manifest = _publish(context, store, staged, value, cost, key, version, inputs)
    return dg.Output(Stored(manifest), data_version=dg.DataVersion(manifest.digest))


def _input_digest(store: ArtifactStore, name: str) -> str:
    manifest = store.manifest(name)
    return manifest.digest if manifest else ""


def _publish(
    context: dg.AssetExecutionContext,
    store: ArtifactStore,
    staged: Path,
    value: Any,
    cost: Cost,
    key: str,
    version: str,
    inputs: dict[str, str],
) -> Manifest:
    resources, asset = context.resources, context.asset_key.path[-1]
    profile = resources.settings.value
    cost.stop()
    if isinstance(value, StudyResult):
        value.run = _record(cost, profile, version, resources)
    if getattr(value, "path", staged) != staged:
        raise UserError(f"asset '{asset}' returned files outside lab.out ({value.path}); write them under lab.out")
    write_value(value, staged)
    unique = key if not store.versions(asset) else f"{key}-{context.run_id[:6]}"
    manifest = store.publish(
        staged,
        Manifest(
            asset=asset, version=unique, key=key, kind=kind_of(value), code_version=version, profile=profile.name,
            inputs=inputs, facts=dict(getattr(value, "facts", {}) or {}), seconds=cost.wall_seconds,
        ),
    )
    if isinstance(value, StudyResult):
        resources.journal.record(value, run_id=context.run_id, version=manifest.version)
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
