"""A package as `/v1/models` lists it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from service.models.engine_selection import Opened
from service.packages.manifest import Manifest


class ModelState(StrEnum):
    """The state of a package."""

    LOADING = "loading"
    READY = "ready"
    UNLOADING = "unloading"  # takes no new requests, and finishes its current ones
    UNLOADED = "unloaded"  # in the folder, but not selected
    REFUSED = "refused"


@dataclass(frozen=True)
class ModelEntry:
    """One package in the listing.

    `manifest` and `opened` belong to a version that serves, `reason` to a package that was refused. A version
    that serves has a reason if its package in the folder has changed since, and the change was refused.
    `feature_size` is set for versions that serve and can be the base of taught models.
    """

    name: str
    version: int
    state: ModelState
    manifest: Manifest | None = None
    opened: Opened | None = None
    reason: str | None = None
    feature_size: int | None = None

    @property
    def provider(self) -> str | None:
        """The provider that it runs on, as named in the setting."""
        return None if self.opened is None else self.opened.session.runtime.provider
