"""DatasetStore: data sources as local files or folders."""

from pathlib import Path

import dagster as dg

from curriculum.results import Identity
from curriculum.sources import dataset_folder, identify


class DatasetStore(dg.ConfigurableResource):
    """Resolves ``packaged:``, ``path:`` and ``hub:`` data sources."""

    def folder(self, uri: str) -> Path:
        return dataset_folder(uri)

    def identity(self, uri: str, role: str) -> Identity:
        return identify(uri, self.folder(uri), role)
