"""ArtifactStore and its IO manager: values stored by their type, reused by what made them."""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from curriculum.artifacts import DirectoryArtifact, IndexArtifact, ModelArtifact
from curriculum.errors import UserError
from curriculum.results import StudyResult
from curriculum.storage import ArtifactStore, Manifest, again, digest_of, partition_name

_DIRECTORY_KINDS = {"model": ModelArtifact, "index": IndexArtifact, "directory": DirectoryArtifact}
_INLINE_PLOT_BYTES = 50_000  # larger ones stay in the artifact: the event log would grow by their size every run


class Artifacts(dg.ConfigurableResource):
    """Where artifacts live: a local folder or an fsspec URL. ``fresh`` turns reuse off."""

    root: str
    local: str
    fresh: bool = False

    def store(self) -> ArtifactStore:
        return ArtifactStore(self.root, Path(self.local))


@dataclass(frozen=True)
class Stored:
    """A version that is already in the store: made just now, or found by what makes it (``reused``)."""

    manifest: Manifest
    reused: bool = False


def kind_of(value: Any) -> str:
    """Which of table, result, model, index, directory a value is.

    Raises:
        UserError: an asset returned something else.
    """
    if isinstance(value, StudyResult):
        return "result"
    for kind, cls in _DIRECTORY_KINDS.items():
        if type(value) is cls:
            return kind
    if type(value).__name__ == "DataFrame":
        return "table"
    raise UserError(f"an asset returned {type(value).__name__}; return a DataFrame, ModelArtifact, IndexArtifact or StudyResult")


def write_value(value: Any, folder: Path) -> None:
    """Write a value's files under ``folder``; directory artifacts are already there."""
    kind = kind_of(value)
    if kind == "result":
        value.save(folder)
    elif kind == "table":
        value.to_parquet(folder / "table.parquet", index=False)


def read_value(manifest: Manifest, folder: Path) -> Any:
    """The value a version holds, by the kind its manifest names."""
    if manifest.kind == "result":
        return StudyResult.load(folder)
    if manifest.kind == "table":
        import pandas as pd

        return pd.read_parquet(folder / "table.parquet")
    return _DIRECTORY_KINDS[manifest.kind](folder, manifest.facts)


def metadata_of(manifest: Manifest, folder: Path) -> dict[str, Any]:
    """What the UI shows of a version: its identity, its facts, a result's metrics, tables and small plots."""
    shown: dict[str, Any] = {
        "version": manifest.version, "digest": manifest.digest[:16], "profile": manifest.profile,
        "bytes": sum(r.bytes for r in manifest.files.values()), "seconds": float(manifest.seconds),
        "path": dg.MetadataValue.path(str(folder)),
    }
    if manifest.made_from:
        rows = "\n".join(f"| {name} | {version} |" for name, version in manifest.made_from.items())
        shown["made from"] = dg.MetadataValue.md(f"| input | version |\n|---|---|\n{rows}")
    if manifest.facts:
        shown["facts"] = dg.MetadataValue.json(manifest.facts)
    value = read_value(manifest, folder) if manifest.kind in {"result", "table"} else None
    if manifest.kind == "table":
        shown["dagster/row_count"] = len(value)
        shown["columns"] = ", ".join(map(str, value.columns))
    if isinstance(value, StudyResult):
        shown.update(_result_metadata(value))
    return shown


def _result_metadata(result: StudyResult) -> dict[str, Any]:
    rows = "\n".join(f"| {m.name} | {m.text()} | {m.n if m.n is not None else ''} |" for m in result.metrics)
    shown: dict[str, Any] = {"metrics": dg.MetadataValue.md(f"| metric | value | n |\n|---|---|---|\n{rows}")}
    shown.update({f"metric/{m.name}": float(m.value) for m in result.metrics})
    for name, png in result.plots.items():
        if len(png) <= _INLINE_PLOT_BYTES:
            shown[f"plot/{name}"] = dg.MetadataValue.md(f"![{name}](data:image/png;base64,{base64.b64encode(png).decode()})")
    for name, table in result.tables.items():
        shown[f"table/{name}"] = dg.MetadataValue.md(_markdown(table.head(25)))
    if result.remarks:
        shown["remarks"] = dg.MetadataValue.md("\n".join(f"- {r}" for r in result.remarks))
    return shown


def _markdown(table: Any) -> str:
    def cell(value: Any) -> str:
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        return text.replace("|", "\\|").replace("\n", " ")[:200]

    lines = ["| " + " | ".join(map(str, table.columns)) + " |", "|" + "---|" * len(table.columns)]
    lines += ["| " + " | ".join(cell(v) for v in row) + " |" for row in table.itertuples(index=False)]
    return "\n".join(lines)


class ArtifactIOManager(dg.ConfigurableIOManager):
    """Stores each value by its type through the artifact store; a reused value is only pointed at."""

    artifacts: dg.ResourceDependency[Artifacts]

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        store = self.artifacts.store()
        if isinstance(obj, dict):  # partition -> Stored; what each one holds is shown by who made them
            for one in obj.values():
                store.point(one.manifest)
            return
        stored = obj if isinstance(obj, Stored) else self._store(store, context, obj)
        store.point(stored.manifest)
        shown = metadata_of(stored.manifest, store.path(stored.manifest))
        context.add_output_metadata({**shown, "reused": stored.reused})

    @staticmethod
    def _store(store: ArtifactStore, context: dg.OutputContext, value: Any) -> Stored:
        """Publish a plain value (an asset that was not made by ``lineage_asset``): a new version every run."""
        asset, key = context.asset_key.path[-1], digest_of([context.asset_key.path[-1], context.run_id])[:16]
        with store.staging(asset) as staged:
            write_value(value, staged)
            return Stored(store.publish(staged, Manifest(asset=asset, version=key, key=key, kind=kind_of(value))))

    def load_input(self, context: dg.InputContext) -> Any:
        store, asset = self.artifacts.store(), context.asset_key.path[-1]
        if context.has_asset_partitions:
            found = {key: store.manifest(partition_name(asset, key)) for key in context.asset_partition_keys}
            return {key: read_value(m, store.path(m)) if m else None for key, m in found.items()}
        manifest = store.manifest(asset)
        if manifest is None:
            raise UserError(f"'{asset}' has not been materialised in {self.artifacts.root}; {again(asset)} first (or `make run`)")
        return read_value(manifest, store.path(manifest))
