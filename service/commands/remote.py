"""The client for the commands, with its errors translated to those of the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from blvnet_client import BlvnetClientError, Client, LocalError
from service.errors import BlvnetError


class ServerFailed(BlvnetError):
    """The server cannot be reached, refuses the key, or is another kind of server."""


class BadServerOption(BlvnetError):
    """The address or the key is malformed."""

    exit_code = 2


@contextmanager
def connected(url: str, api_key: str | None) -> Iterator[Client]:
    """A client of a server that answers; errors of the client in the block are raised as `ServerFailed`.

    The first request is not retried, so that a wrong address is reported at once. Later failures are retried,
    so that a restart of the server does not end the command.
    """
    try:
        client = Client(url, api_key)
    except LocalError as exc:
        raise BadServerOption(exc.message) from exc
    try:
        with client:
            client.ready()
            yield client
    except BlvnetClientError as exc:
        raise ServerFailed(exc.message) from exc
