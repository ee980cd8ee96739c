"""``curriculum serve``: the promoted versions loaded, and the service listening."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from curriculum.errors import UserError
from curriculum.hardware import use_threads
from curriculum.serving.app import create_app
from curriculum.serving.bundle import Bundles
from curriculum.serving.feedback import FeedbackStore
from curriculum.serving.guard import LOOPBACK
from curriculum.serving.served import Served
from curriculum.serving.service import Service
from curriculum.sources import model_folder
from curriculum.storage import ArtifactStore

if TYPE_CHECKING:
    from curriculum.profile import Profile

KEY = "CURRICULUM_SERVE_KEY"
_CONNECTIONS = 256


def start(profile: Profile, store: ArtifactStore, home: Path) -> Service:
    """The service over what is promoted now. The models are loaded in the thread that will load later versions too.

    Raises:
        UserError: something that is needed was never promoted, or cannot be loaded; the message names the command that helps.
    """
    bundles = Bundles(store, profile, lambda uri: model_folder(uri, home / "models"))
    use_threads(profile.serving.threads)
    feedback = FeedbackStore(home / "feedback" / profile.name, profile.serving.kept_answers)
    return Service(lambda: Served(bundles), feedback, profile.rag, profile.serving, profile.name)


def serve(profile: Profile, store: ArtifactStore, home: Path, *, host: str, port: int) -> None:
    """Serve until interrupted. Addresses are not logged: they hold the queries of GET requests.

    Raises:
        UserError: as :func:`start`; or ``host`` is not this machine alone and no key is set.
    """
    key = os.environ.get(KEY, "")
    if host not in LOOPBACK and not key:
        raise UserError(f"on host {host} anyone who reaches it could ask: set {KEY} to a key that requests must give, or leave --host out")
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    print(f"loading what profile {profile.name} has promoted", flush=True)
    service = start(profile, store, home)
    app = create_app(service, key=key, hosts=LOOPBACK if host in LOOPBACK else frozenset())
    for asset, version in service.served.bundle.versions.items():
        print(f"{asset}: {version}", flush=True)
    print(f"serving on http://{f'[{host}]' if ':' in host else host}:{port} (Ctrl-C ends)", flush=True)
    uvicorn.run(
        app, host=host, port=port, log_level="warning", access_log=False, server_header=False, proxy_headers=False,
        timeout_keep_alive=15, timeout_graceful_shutdown=30, limit_concurrency=_CONNECTIONS,
    )  # fmt: skip
