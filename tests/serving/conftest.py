"""The small home once, and a service over it whose endpoint says what the test tells it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from curriculum.serving.app import create_app
from curriculum.storage import ArtifactStore
from tests.retrieval.conftest import encoder_folder  # noqa: F401 - a fixture
from tests.serving.small import make_home, make_service, profile, writing

URL = "http://127.0.0.1:8080"


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory, encoder_folder: Path) -> Path:  # noqa: F811
    folder = tmp_path_factory.mktemp("home")
    make_home(folder, encoder_folder)
    return folder


@pytest.fixture
def store(home: Path, tmp_path: Path) -> ArtifactStore:
    """A copy of the home's store, to be changed."""
    shutil.copytree(home / "artifacts", tmp_path / "artifacts")
    return ArtifactStore(str(tmp_path / "artifacts"))


class Told:
    """What the endpoint writes: pieces, or a script; and the messages it was sent."""

    def __init__(self) -> None:
        self.pieces: Any = []
        self.seen: list[Any] = []

    def __call__(self, messages: Any) -> Iterator[str]:
        self.seen.append(messages)
        yield from self.pieces() if callable(self.pieces) else self.pieces


@pytest.fixture(scope="session")
def told() -> Told:
    return Told()


@pytest.fixture(scope="session")
def endpoint(told: Told) -> Iterator[str]:
    with writing(told) as url:
        yield url


@pytest.fixture
def client(home: Path, tmp_path: Path, endpoint: str, encoder_folder: Path) -> Iterator[Callable[..., TestClient]]:  # noqa: F811
    """``client(key="", store=None, **sections of the profile)``: a client of a new service."""
    opened: list[TestClient] = []

    def make(key: str = "", store: ArtifactStore | None = None, **sections: Any) -> TestClient:
        settings = profile(encoder_folder, endpoint, **sections)
        service = make_service(tmp_path, store or ArtifactStore(str(home / "artifacts")), settings)
        made = TestClient(create_app(service, key=key, hosts=frozenset({"127.0.0.1"})), base_url=URL)
        made.__enter__()
        made.service = service
        opened.append(made)
        return made

    yield make
    for made in opened:
        made.__exit__(None, None, None)
