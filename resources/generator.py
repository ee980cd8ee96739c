"""Generator: the text generator the profile names, built once a process."""

from typing import Any

import dagster as dg

from resources.compute import Compute
from resources.model_store import ModelStore
from resources.settings import Settings

_built: dict[str, Any] = {}  # loading a model takes seconds to minutes, and several assets of one run ask for the same one


class GeneratorResource(dg.ConfigurableResource):
    """A local transformers model, or any OpenAI-compatible endpoint (section ``generator`` of the profile)."""

    settings: dg.ResourceDependency[Settings]
    models: dg.ResourceDependency[ModelStore]
    compute: dg.ResourceDependency[Compute]

    def get(self) -> Any:
        from curriculum.generation.factory import build_generator
        from curriculum.hardware import resolve_device

        wanted = self.settings.value.generator
        key = wanted.model_dump_json()
        if key not in _built:
            _built.clear()
            _built[key] = build_generator(wanted, self.models.folder, resolve_device(self.compute.device))
        return _built[key]
