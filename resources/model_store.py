"""ModelStore: model sources as local folders."""

from pathlib import Path

import dagster as dg

from curriculum.results import Identity
from curriculum.sources import identify, model_folder


class ModelStore(dg.ConfigurableResource):
    """Resolves ``packaged:``, ``path:`` and ``hub:`` model sources; ``cache`` keeps conversions made once."""

    cache: str

    def folder(self, uri: str) -> Path:
        return model_folder(uri, Path(self.cache))

    def identity(self, uri: str, role: str) -> Identity:
        return identify(uri, self.folder(uri), role)
