"""Which versions are promoted: read before anything heavy is imported, and every few seconds while they are served."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curriculum.errors import UserError
from curriculum.storage import ArtifactStore

if TYPE_CHECKING:
    from curriculum.profile import Profile


def promoted_versions(store: ArtifactStore, profile: Profile) -> dict[str, str]:
    """The promoted versions in force of what answers under ``profile``, by asset.

    Raises:
        UserError: one of them was never promoted; the message names the command that does it.
    """
    names = ["promoted_index", "promoted_reranker", "promoted_verifier"]
    names += ["promoted_reader"] if profile.rag.answerer == "reader" else []
    found = {name: store.manifest(name) for name in names}
    absent = [name for name, manifest in found.items() if manifest is None]
    if absent:
        raise UserError(
            f"{store.root} holds no {' and no '.join(absent)}: run `curriculum run --profile {profile.name}` first, "
            "which makes and promotes what is served"
        )
    return {name: manifest.version for name, manifest in found.items() if manifest is not None}
