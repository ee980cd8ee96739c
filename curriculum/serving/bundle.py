"""What answers a request: one immutable bundle of the promoted index, reranker, verifier and answerer, read from the store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from curriculum.errors import IntegrityError
from curriculum.generation.factory import build_generator
from curriculum.grounding.verifier import SupportVerifier
from curriculum.hardware import resolve_device
from curriculum.ingest.parts import read_batches
from curriculum.rag.assembly import build_reader
from curriculum.rag.calibrated import read_calibrated
from curriculum.reranking.reranker import Reranker
from curriculum.retrieval.dense import Encoder
from curriculum.retrieval.hybrid import HybridRetriever, leg_weights
from curriculum.search_tuning.chosen import read_chosen
from curriculum.search_tuning.settings import SearchSetting
from curriculum.serving.passages import SHOWN, Passages, Texts
from curriculum.serving.promoted import (
    CALIBRATED,
    TUNED,
    collection_of,
    index_asset,
    miscalibrated,
    misfit,
    passage_words_of,
    promoted_versions,
)
from curriculum.serving.quoting import QuotingAnswerer
from curriculum.serving.schemas import Abstention
from curriculum.sources import PROMOTED, promoted_manifest
from curriculum.storage import ArtifactStore, Manifest, again

if TYPE_CHECKING:
    from curriculum.profile import Profile

Writer = Callable[[str, Sequence[str]], Iterator[str]]  # of a question and its passages; gives the draft piece by piece
Versions = Mapping[str, str]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bundle:
    """Everything one request is answered with. A request holds it by reference until it ends, whatever is promoted meanwhile.

    ``collection`` is what is searched and ``setting`` how, ``passages`` are its rows by id, ``texts`` what a model reads of each,
    ``threshold`` the support from which a sentence counts as supported, ``abstention`` that from which an answer is given out at all.
    """

    versions: Versions
    collection: str
    setting: SearchSetting
    passages: Mapping[str, Mapping[str, str]]
    texts: Mapping[str, str]
    retriever: HybridRetriever
    reranker: Reranker
    verifier: SupportVerifier
    write: Writer
    threshold: float
    abstention: Abstention


class Bundles:
    """Loads bundles of a profile's promoted versions; what two of them have in common is loaded once."""

    def __init__(self, store: ArtifactStore, profile: Profile, models: Callable[[str], Path]) -> None:
        self._store, self._profile, self._models = store, profile, models
        self._device = resolve_device(profile.compute.device)
        self._loaded: dict[tuple[str, str], Any] = {}

    def promoted(self) -> dict[str, str]:
        """The promoted versions in force, by asset. Raises as :func:`promoted_versions`."""
        return promoted_versions(self._store, self._profile)

    def load(self, versions: Versions) -> Bundle:
        """The bundle of these promoted versions.

        Raises:
            IntegrityError: a version is gone or damaged.
            UserError: the passages that the index was built from are gone.
        """
        before, self._loaded = self._loaded, {}
        try:
            return self._bundle(versions, before)
        except BaseException:
            self._loaded = before
            raise

    def _bundle(self, versions: Versions, before: Mapping[tuple[str, str], Any]) -> Bundle:
        def once(name: str, version: str, make: Callable[[], Any]) -> Any:
            known = before.get((name, version))
            self._loaded[name, version] = known if known is not None else make()
            return self._loaded[name, version]

        name = index_asset(self._profile)
        index = self._manifest(name, versions[name])
        collection, setting = collection_of(index, self._profile), self._setting(index, versions)
        searched = f"{index.version} {versions.get(TUNED, '')}"  # a setting belongs to the opened index: Lucene keeps its k1 and b
        retriever = once("retriever", searched, lambda: self._retriever(index, collection, setting))
        passages = once("passages", index.version, lambda: Passages(self._passages(index, collection)))
        reranker, verifier = (
            once(name, versions[name], lambda name=name, kind=kind: kind.load(self._path(name, versions), self._device))
            for name, kind in (("promoted_reranker", Reranker), ("promoted_verifier", SupportVerifier))
        )
        reranker.encoder.precision = self._profile.serving.reranker_precision
        write = once("writer", versions.get("promoted_reader", ""), lambda: self._writer(versions))
        chosen = self._profile.rag.support_threshold
        threshold = verifier.threshold if chosen is None else chosen
        abstention = self._abstention(versions)
        return Bundle(
            dict(versions), collection, setting, passages, Texts(passages), retriever, reranker, verifier, write, threshold, abstention
        )

    def _manifest(self, asset: str, version: str) -> Manifest:
        manifest = self._store.manifest(asset, version)
        if manifest is None:
            raise IntegrityError(f"version {version} of '{asset}' is gone; {again(asset)}")
        return manifest

    def _path(self, asset: str, versions: Versions) -> Path:
        return self._store.path(self._manifest(asset, versions[asset]))

    def _model(self, uri: str) -> Path:
        return self._store.path(promoted_manifest(self._store, uri)) if uri.startswith(PROMOTED) else self._models(uri)

    def _setting(self, index: Manifest, versions: Versions) -> SearchSetting:
        """How is searched: as the promoted settings say where ``versions`` has them, else as the profile, by the BM25 that was measured."""
        if TUNED in versions:
            return read_chosen(self._path(TUNED, versions))
        tuned = self._store.manifest(TUNED)
        if tuned is not None and self._profile.serving.tuned_search and (reason := misfit(tuned, index, self._profile)):
            _log.warning("%s %s are not applied: %s", TUNED, tuned.version, reason)
        retrieval, bm25 = self._profile.retrieval, index.facts["bm25"]
        return SearchSetting(
            passage_words=passage_words_of(index, self._profile), fusion=retrieval.fusion, dense_weight=retrieval.dense_weight,
            depth=retrieval.depth, k1=bm25.get("k1", retrieval.k1), b=bm25.get("b", retrieval.b), rerank_depth=self._profile.rag.depth,
        )  # fmt: skip

    def _abstention(self, versions: Versions) -> Abstention:
        """From which support an answer is given out: the promoted threshold where ``versions`` has it, else none."""
        if CALIBRATED in versions:
            made = read_calibrated(self._path(CALIBRATED, versions))
            return Abstention(threshold=made.threshold, target_risk=made.target_risk)
        other = self._store.manifest(CALIBRATED)
        if other is None or not self._profile.serving.abstain:
            return Abstention()
        reason = f"{CALIBRATED} {other.version} is not applied: {miscalibrated(other, self._store, self._profile, versions)}"
        _log.warning(reason)
        return Abstention(not_applied=reason)

    def _retriever(self, promoted: Manifest, collection: str, setting: SearchSetting) -> HybridRetriever:
        """Both indexes, and the encoder that the dense one was built by, whatever the profile says by now."""
        folder, source = self._store.path(promoted), promoted.facts["dense"]["encoder"]
        encoder = Encoder(self._model(source), self._profile.retrieval.model_copy(update={"encoder": source}), self._device)
        retriever = HybridRetriever(
            folder / "bm25", folder / "dense", encoder, fusion=setting.fusion, weights=leg_weights(setting.dense_weight),
            depth=setting.depth, k1=setting.k1, b=setting.b,
        )  # fmt: skip
        retriever.search(["warm up"], 1, collection)  # opens both indexes; a collection that is not there is an error here
        return retriever

    def _passages(self, promoted: Manifest, collection: str) -> Iterable[pd.DataFrame]:
        """The passages that the promoted index was built from: the lineage of its manifests says which version."""
        assert promoted.target is not None, promoted.asset
        index = self._manifest(promoted.target["asset"], promoted.target["version"])
        if own := index.made_from.get("own_corpus_passages"):
            return read_batches(self._store.path(self._manifest("own_corpus_passages", own)), list(SHOWN))
        lexical = self._manifest("bm25_index", index.made_from["bm25_index"])
        table = pd.read_parquet(self._store.path(self._manifest("passages", lexical.made_from["passages"])) / "table.parquet")
        return [table[table["collection"] == collection]]

    def _writer(self, versions: Versions) -> Writer:
        rag, seed = self._profile.rag, self._profile.seed
        if rag.answerer == "generator":
            generator = build_generator(self._profile.generator, self._model, self._device)
            return QuotingAnswerer(generator, max_new_tokens=rag.max_new_tokens, passage_words=rag.passage_words, seed=seed).stream
        reader = build_reader(self._path("promoted_reader", versions), self._device)
        return lambda question, contexts: iter([reader.answer([question], [contexts])[0].text])
