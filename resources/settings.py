"""Settings: the profile in force, as a resource."""

from functools import cached_property
from typing import Any

import dagster as dg

from curriculum.profile import load_profile


class Settings(dg.ConfigurableResource):
    """The profile by name, with overrides by section (tests and ablations)."""

    profile: str = "starter"
    overrides: dict[str, Any] = {}  # noqa: RUF012 - a pydantic field

    @cached_property
    def value(self) -> Any:
        return load_profile(self.profile, self.overrides)
