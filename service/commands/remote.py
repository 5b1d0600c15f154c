"""The client for the commands, with its errors translated to those of the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from blvnet_client import BlvnetClientError, Client
from service.errors import BlvnetError


class ServerFailed(BlvnetError):
    """The server cannot be reached, refuses the key, or is another kind of server."""


@contextmanager
def connected(url: str, api_key: str | None) -> Iterator[Client]:
    """A client of a server that answers; errors of the client in the block are raised as `ServerFailed`.

    The first request is not retried, so that a wrong address is reported at once. Later failures are retried,
    so that a restart of the server does not end the command.
    """
    try:
        with Client(url, api_key) as client:
            client.ready()
            yield client
    except BlvnetClientError as exc:
        raise ServerFailed(exc.message) from exc
