"""ModelStore: model sources as local folders."""

from pathlib import Path

import dagster as dg

from curriculum.results import Identity
from curriculum.sources import PROMOTED, identify, model_folder, promoted_manifest
from curriculum.storage import Manifest
from resources.artifact_store import Artifacts


class ModelStore(dg.ConfigurableResource):
    """Resolves ``packaged:``, ``path:``, ``hub:`` and ``promoted:`` model sources; ``cache`` keeps conversions made once.

    ``promoted:embedder`` is the version of ``promoted_embedder`` in force, ``promoted:embedder@VERSION`` that very one.
    """

    cache: str
    artifacts: dg.ResourceDependency[Artifacts]

    def folder(self, uri: str) -> Path:
        """A local folder that ``from_pretrained`` reads.

        Raises:
            SourceError: the source cannot be had; the message names what to change.
        """
        if uri.startswith(PROMOTED):
            return self.artifacts.store().path(self._promoted(uri))
        return model_folder(uri, Path(self.cache))

    def identity(self, uri: str, role: str) -> Identity:
        """The source with a digest of what it is now."""
        if uri.startswith(PROMOTED):
            return Identity(role=role, source=self.pinned(uri), digest=self._promoted(uri).digest[:16])
        return identify(uri, self.folder(uri), role)

    def pinned(self, uri: str) -> str:
        """``uri`` with the version it means now, where it is a promoted model; any other as it is."""
        if not uri.startswith(PROMOTED):
            return uri
        return f"{uri.partition('@')[0]}@{self._promoted(uri).version}"

    def _promoted(self, uri: str) -> Manifest:
        return promoted_manifest(self.artifacts.store(), uri)
