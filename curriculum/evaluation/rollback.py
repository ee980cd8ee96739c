"""Going back to an earlier promoted version."""

from __future__ import annotations

from curriculum.errors import UserError
from curriculum.storage import ArtifactStore


def roll_back(store: ArtifactStore, asset: str, version: str = "") -> tuple[str, str]:
    """Make ``version`` of the promoted ``asset`` (by default the one before the present one) the latest; both names are returned.

    The files are verified first: a version that cannot be served is not pointed at.

    Raises:
        UserError: the asset is no promoted one, or has no such version.
        IntegrityError: the version's files are gone or differ from their checksums.
    """
    present, versions = store.manifest(asset), store.versions(asset)
    if present is None or present.target is None:
        raise UserError(f"'{asset}' is no promoted asset of this profile; name one that was promoted, such as promoted_reader")
    names = [m.version for m in versions]
    if not version:
        before = names.index(present.version) - 1
        if before < 0:
            raise UserError(f"'{asset}' has no version before {present.version}")
        version = names[before]
    chosen = next((m for m in versions if m.version == version), None)
    if chosen is None:
        raise UserError(f"'{asset}' has no version '{version}'; it has {', '.join(names)}")
    store.path(chosen)
    store.point(chosen)
    return present.version, chosen.version
