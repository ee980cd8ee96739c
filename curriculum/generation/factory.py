"""The generator that the settings name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from curriculum.generation.base import Generator
from curriculum.generation.settings import GeneratorSettings


def build_generator(settings: GeneratorSettings, model: Callable[[str], Path], device: str) -> Generator:
    """A local model (``model`` resolves its source) or an endpoint."""
    if settings.kind == "endpoint":
        from curriculum.generation.endpoint import EndpointGenerator

        return EndpointGenerator(settings)
    from curriculum.generation.local import LocalGenerator

    return LocalGenerator(model(settings.model), name=settings.model, batch_size=settings.batch_size, device=device)
