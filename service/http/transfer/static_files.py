"""Files that do not change while the process runs: compressed once, and revalidated by their digest."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from fastapi import Request
from fastapi.responses import Response

COMPRESSIBLE = ("text/", "application/json", "image/svg+xml")
# Browsers keep the file but ask whether it changed, so that a page never mixes two versions of its modules.
REVALIDATE = "no-cache"


@dataclass(frozen=True)
class StaticFile:
    """A file to serve."""

    content: bytes
    media_type: str

    @cached_property
    def compressed(self) -> bytes | None:
        """The gzip-compressed content; None for media, which is already compressed."""
        if not self.media_type.startswith(COMPRESSIBLE):
            return None
        return gzip.compress(self.content, mtime=0)

    @cached_property
    def digest(self) -> str:
        """The digest of the content."""
        return hashlib.sha256(self.content).hexdigest()[:24]

    def response(self, request: Request, headers: Mapping[str, str] | None = None) -> Response:
        """Return the file, or 304 if the client has it; compressed if the client accepts that."""
        zipped = self.compressed is not None and _accepts_gzip(request.headers.get("Accept-Encoding", ""))
        etag = f'"{self.digest}{"-gzip" if zipped else ""}"'
        fields = {"Cache-Control": REVALIDATE, "ETag": etag, "Vary": "Accept-Encoding", **(headers or {})}
        known = {
            tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")
        }
        if etag in known or "*" in known:
            return Response(status_code=304, headers=fields)
        if zipped:
            fields["Content-Encoding"] = "gzip"
        body = self.compressed if zipped else self.content
        return Response(body, media_type=self.media_type, headers=fields)


def _accepts_gzip(accepted: str) -> bool:
    for option in accepted.lower().split(","):
        coding, _, weight = option.partition(";")
        if coding.strip() in ("gzip", "*"):
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
