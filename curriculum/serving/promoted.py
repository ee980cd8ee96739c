"""Which versions are promoted: read before anything heavy is imported, and every few seconds while they are served."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curriculum.errors import UserError
from curriculum.storage import ArtifactStore

if TYPE_CHECKING:
    from curriculum.profile import Profile


OWN_INDEX = "promoted_own_corpus_index"


def index_asset(profile: Profile) -> str:
    """The promoted index that answers under ``profile``: that of the user's own corpus, where the profile names one."""
    return OWN_INDEX if profile.corpus.path else "promoted_index"


def promoted_versions(store: ArtifactStore, profile: Profile) -> dict[str, str]:
    """The promoted versions in force of what answers under ``profile``, by asset.

    Raises:
        UserError: one of them was never promoted; the message names the command that does it.
    """
    names = [index_asset(profile), "promoted_reranker", "promoted_verifier"]
    names += ["promoted_reader"] if profile.rag.answerer == "reader" else []
    found = {name: store.manifest(name) for name in names}
    absent = [name for name, manifest in found.items() if manifest is None]
    if absent:
        only_index = " --job corpus" if absent == [OWN_INDEX] else ""
        raise UserError(
            f"{store.root} holds no {' and no '.join(absent)}: run `curriculum run --profile {profile.name}{only_index}` first, "
            "which makes and promotes what is served"
        )
    return {name: manifest.version for name, manifest in found.items() if manifest is not None}
