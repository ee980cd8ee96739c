"""Which versions are promoted: read before anything heavy is imported, and every few seconds while they are served."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from curriculum.errors import UserError
from curriculum.rag.calibrated import answered_by, unlike
from curriculum.sources import PROMOTED, promoted_manifest
from curriculum.storage import ArtifactStore, Manifest

if TYPE_CHECKING:
    from curriculum.profile import Profile

OWN_INDEX, TUNED, CALIBRATED = "promoted_own_corpus_index", "promoted_search_settings", "promoted_abstention"


def index_asset(profile: Profile) -> str:
    """The promoted index that answers under ``profile``: that of the user's own corpus, where the profile names one."""
    return OWN_INDEX if profile.corpus.path else "promoted_index"


def promoted_versions(store: ArtifactStore, profile: Profile) -> dict[str, str]:
    """The promoted versions in force of what answers under ``profile``, by asset; tuned search settings where they fit the index,
    and the threshold of abstention where it was calibrated for all of these.

    Raises:
        UserError: one that is needed was never promoted; the message names the command that does it.
    """
    index = index_asset(profile)
    names = [index, "promoted_reranker", "promoted_verifier"]
    names += ["promoted_reader"] if profile.rag.answerer == "reader" else []
    found = {name: store.manifest(name) for name in names}
    absent = [name for name, manifest in found.items() if manifest is None]
    if absent:
        only_index = " --job corpus" if absent == [OWN_INDEX] else ""
        raise UserError(
            f"{store.root} holds no {' and no '.join(absent)}: run `curriculum run --profile {profile.name}{only_index}` first, "
            "which makes and promotes what is served"
        )
    tuned, searched = store.manifest(TUNED) if profile.serving.tuned_search else None, found[index]
    if tuned is not None and searched is not None and not misfit(tuned, searched, profile):
        found[TUNED] = tuned
    versions = {name: manifest.version for name, manifest in found.items() if manifest is not None}
    calibrated = store.manifest(CALIBRATED) if profile.serving.abstain else None
    if calibrated is not None and not miscalibrated(calibrated, store, profile, versions):
        versions[CALIBRATED] = calibrated.version
    return versions


def collection_of(index: Manifest, profile: Profile) -> str:
    """The collection of the promoted ``index`` that is searched: a user's corpus is one, of its own name."""
    return str(index.facts.get("name", profile.rag.collection))


def passage_words_of(index: Manifest, profile: Profile) -> int:
    """The words that a passage of the promoted ``index`` has at most; 0: its documents are whole."""
    return int(index.facts.get("passage_words", profile.retrieval.passage_words))


def misfit(tuned: Manifest, index: Manifest, profile: Profile) -> str:
    """Why the promoted search settings ``tuned`` are not for the promoted ``index``; "" where they are.

    A gain was measured on one collection and one chunking. What was cut otherwise is another index, which a setting cannot make.
    """
    collection, words = collection_of(index, profile), passage_words_of(index, profile)
    if tuned.facts["collection"] != collection:
        return f"they were tuned on the collection '{tuned.facts['collection']}', and '{collection}' is searched"
    if tuned.facts["passage_words"] != words:
        return (
            f"they are for passages of {tuned.facts['passage_words']} words and the index has {words}; to have them, set "
            f"retrieval.passage_words to {tuned.facts['passage_words']} and run `curriculum run --profile {profile.name}`"
        )
    return ""


def miscalibrated(calibrated: Manifest, store: ArtifactStore, profile: Profile, versions: Mapping[str, str]) -> str:
    """Why the promoted threshold ``calibrated`` is not for the ``versions`` that answer under ``profile``; "" where it is.

    Its risk was measured on answers of one index, reranker, verifier and answerer; what another one's support is worth is not known.
    """
    model = profile.generator.model

    def generator() -> str:
        return f"{model.partition('@')[0]}@{promoted_manifest(store, model).version}" if model.startswith(PROMOTED) else model

    return unlike(calibrated.facts["calibrated_for"], answered_by(profile.rag, versions, generator, versions.get(TUNED, "profile")))
