"""The user's own folder of documents, searched and measured. These assets exist under a profile that names one: ``corpus: {path: DIR}``.

Each reads its own latest version, and makes again only what changed since: files are parsed, documents cut, passages encoded and indexed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.lineage import Lab, lineage_asset
from curriculum.errors import IntegrityError

if TYPE_CHECKING:
    from curriculum.artifacts import DirectoryArtifact, IndexArtifact
    from curriculum.results import StudyResult


def _earlier(lab: Lab, asset: str) -> Callable[[str], Path | None]:
    """Finds the newest version of ``asset`` that was made as ``how`` says; a damaged one counts as absent. None under ``--fresh``."""
    artifacts = lab.resources.artifacts

    def find(how: str) -> Path | None:
        for manifest in reversed(artifacts.store().versions(asset)) if not artifacts.fresh else ():
            if manifest.facts.get("how") == how:
                with contextlib.suppress(IntegrityError):
                    return artifacts.store().path(manifest)
        return None

    return find


@lineage_asset(group="own_corpus", kinds={"parquet"}, settings="corpus")
def own_corpus(lab: Lab) -> DirectoryArtifact:
    """The documents of the user's folder, and the list of its files with what was left out and why."""
    from curriculum.ingest.corpus import build_documents

    folder, previous = lab.dataset(lab.settings.path), _earlier(lab, "own_corpus")
    return build_documents(folder, lab.settings, lab.out, previous=previous, checkpoints=lab.checkpoints, progress=lab.progress)


@lineage_asset(group="own_corpus", kinds={"parquet"}, settings="retrieval")
def own_corpus_passages(lab: Lab, own_corpus: DirectoryArtifact) -> DirectoryArtifact:
    """Passages of the documents, each with its file, its offsets in the text, and its page, line or row."""
    from curriculum.ingest.corpus import build_passages

    words, previous = lab.settings.passage_words, _earlier(lab, "own_corpus_passages")
    return build_passages(own_corpus, words, lab.out, previous=previous, checkpoints=lab.checkpoints, progress=lab.progress)


@lineage_asset(group="own_corpus", kinds={"torch", "safetensors"}, settings="retrieval", pool="gpu")
def own_corpus_vectors(lab: Lab, own_corpus_passages: DirectoryArtifact) -> DirectoryArtifact:
    """Vectors of the passages by the profile's encoder; a text that it encoded before keeps its vector."""
    from curriculum.cluster.encoding import encoder_on
    from curriculum.ingest.vectors import embed_corpus

    settings = lab.settings.model_copy(update={"encoder": lab.pinned(lab.settings.encoder)})
    identity, previous = lab.identity(settings.encoder, "encoder").digest, _earlier(lab, "own_corpus_vectors")
    with encoder_on(lab.model(settings.encoder), settings, lab.device, lab.profile.compute, lab.progress) as encoder:
        return embed_corpus(
            own_corpus_passages, encoder, settings, lab.out, identity=identity, previous=previous, checkpoints=lab.checkpoints,
            progress=lab.progress,
        )  # fmt: skip


@lineage_asset(group="own_corpus", kinds={"lucene", "faiss"}, settings="vector_search")
def own_corpus_index(lab: Lab, own_corpus_passages: DirectoryArtifact, own_corpus_vectors: DirectoryArtifact) -> IndexArtifact:
    """BM25 and vector search over the corpus, in the layout of ``search_index``: exact while a scan is short, then HNSW, then re-scored codes."""
    from curriculum.cluster.indexing import codes_by
    from curriculum.ingest.index import build_index

    return build_index(
        own_corpus_passages, own_corpus_vectors, lab.settings, lab.out, previous=_earlier(lab, "own_corpus_index"), checkpoints=lab.checkpoints,
        progress=lab.progress, codes=codes_by(lab.profile.compute, lab.progress),
    )  # fmt: skip


@lineage_asset(group="own_corpus", kinds={"mteb"}, settings=("retrieval", "corpus"), pool="gpu")
def own_corpus_report(
    lab: Lab, own_corpus: DirectoryArtifact, own_corpus_passages: DirectoryArtifact, own_corpus_index: IndexArtifact
) -> StudyResult:
    """Both legs and every fusion over the corpus, on its judgements or on known items; and how far the numbers can be trusted."""
    from curriculum.ingest.report import Corpus, corpus_report
    from curriculum.retrieval.dense import Encoder

    source, model = lab.profile.corpus.path, own_corpus_index.facts["dense"]["encoder"]
    corpus = Corpus(lab.dataset(source), own_corpus, own_corpus_passages, own_corpus_index)
    known = [lab.identity(model, "encoder"), lab.identity(source, "collection")]
    encoder = Encoder(lab.model(model), lab.settings, lab.device)
    return corpus_report(corpus, encoder, lab.settings, lab.checkpoints, seed=lab.seed, identities=known, progress=lab.progress)


ASSETS = (own_corpus, own_corpus_passages, own_corpus_vectors, own_corpus_index, own_corpus_report)


def own_corpus_assets(profile: Any) -> list[dg.AssetsDefinition]:
    """The assets of the profile's corpus; none where it names none."""
    return list(ASSETS) if profile.corpus.path else []
