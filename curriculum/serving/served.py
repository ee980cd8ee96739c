"""The bundle in force, and its exchange for a newer one while requests go on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from curriculum.errors import UserError
from curriculum.serving.bundle import Bundle, Versions

_log = logging.getLogger(__name__)
_PATIENCE = 60.0  # seconds until versions that could not be loaded are tried again


class Source(Protocol):
    """Where bundles come from; see :class:`curriculum.serving.bundle.Bundles`."""

    def promoted(self) -> dict[str, str]: ...

    def load(self, versions: Versions) -> Bundle: ...


class Served:
    """Holds the bundle in force. A request takes it once and keeps it; the exchange is one assignment.

    Nothing counts the requests of an old bundle: each holds it by reference, and with the last of them it goes, and closes its index.
    """

    def __init__(self, source: Source, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._source, self._clock = source, clock
        self._only_one = threading.Lock()
        self._bundle = source.load(source.promoted())
        self._refused: tuple[dict[str, str], float] | None = None
        self.since, self.swaps, self.problem = _now(), 0, ""

    @property
    def bundle(self) -> Bundle:
        """The bundle in force now."""
        return self._bundle

    def refresh(self) -> bool:
        """Load and put in force what is promoted by now, where that is something else; whether it was.

        What cannot be loaded is not put in force: ``problem`` says why, and the bundle in force stays.
        """
        with self._only_one:
            try:
                wanted = self._source.promoted()
                if wanted == self._bundle.versions:
                    self.problem, self._refused = "", None
                    return False
                if self._refused and self._refused[0] == wanted and self._clock() < self._refused[1]:
                    return False
                self._refused = (wanted, self._clock() + _PATIENCE)
                self._bundle = self._source.load(wanted)
            except Exception as error:  # whatever is wrong with the newer one, the present one answers
                self.problem = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: the newer version cannot be loaded"
                _log.exception("a newly promoted version is not served")
                return False
            self.since, self.swaps, self.problem, self._refused = _now(), self.swaps + 1, "", None
            _log.warning("serving %s", ", ".join(f"{asset} {version}" for asset, version in wanted.items()))
            return True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
