"""Deliveries of finished jobs to the callers' servers, signed as the Standard Webhooks specification says.

A webhook makes the service send requests to an address that a caller chose. So the host has to be on the
operator's list, its addresses have to be public unless the list names the address itself, the connection goes
to the address that was checked, and redirects are not followed.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Collection
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, ip_address

import httpx
from standardwebhooks import Webhook

from service.errors import InvalidParameter

TIMEOUT_S = 10.0
# Pauses before each retry of a delivery; after the last one the service gives up.
RETRY_PAUSES_S = (1.0, 5.0, 30.0, 300.0, 1800.0, 7200.0)
MAX_URL_LENGTH = 2000

logger = logging.getLogger(__name__)


class ForbiddenAddress(Exception):
    """The host of a webhook has an address that is not public."""


class Webhooks:
    """Checks and calls webhooks.

    Args:
        hosts: host names and IP addresses that may be called.
        secret: key of the signatures, `whsec_` and base64.
    """

    def __init__(self, hosts: Collection[str], secret: str) -> None:
        self._hosts = {_ascii_host(host) for host in hosts}
        self._signer = Webhook(secret) if hosts else None
        self._http = httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False)

    def check(self, url: str) -> None:
        """Raise `InvalidParameter` for a URL that may not be called."""
        if not self._hosts:
            raise InvalidParameter("webhook: webhooks are disabled (BLVNET_WEBHOOK_HOSTS lists the hosts).")
        try:
            parsed = httpx.URL(url) if len(url) <= MAX_URL_LENGTH else httpx.URL()
        except httpx.InvalidURL:
            parsed = httpx.URL()
        if parsed.scheme not in ("http", "https") or not parsed.raw_host or parsed.userinfo:
            raise InvalidParameter("webhook: it must be an http or https URL without user and password.")
        # Not `host`, which fails for names that only older rules of international names allow.
        host = parsed.raw_host.decode()
        if host not in self._hosts:
            raise InvalidParameter(f"webhook: {host} is not one of the hosts that may be called.")

    async def deliver(self, url: str, message_id: str, body: str) -> bool:
        """Post a JSON document; whether the receiver answered with a status from 200 to 299.

        A host that the operator has taken off the list since the job was submitted is not called.
        """
        now = datetime.now(tz=UTC)
        target = httpx.URL(url)
        host = target.raw_host.decode()
        if self._signer is None or host not in self._hosts:
            logger.warning("webhook not called, its host is not listed", extra={"host": host})
            return False
        headers = {
            "Host": target.netloc.decode(),
            "Content-Type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._signer.sign(message_id, now, body),
        }
        try:
            # For all of it: httpx limits only each wait for data, and deliveries wait for one another.
            async with asyncio.timeout(TIMEOUT_S):
                address = await self._checked_address(target)
                answer = self._http.stream(
                    "POST",
                    target.copy_with(host=str(address)),
                    content=body.encode(),
                    headers=headers,
                    extensions={"sni_hostname": host},
                )
                async with answer as response:
                    pass  # the body is not read: it says nothing, and it may be endless
        except (httpx.HTTPError, OSError, ForbiddenAddress) as exc:
            logger.warning("webhook failed", extra={"host": host, "reason": repr(exc)})
            return False
        if not response.is_success:
            logger.warning("webhook refused", extra={"host": host, "status": response.status_code})
        return response.is_success

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _checked_address(self, url: httpx.URL) -> IPv4Address | IPv6Address:
        """Return the host's first address, if all of its addresses may be called."""
        found = await asyncio.get_running_loop().getaddrinfo(
            url.raw_host, url.port or (443 if url.scheme == "https" else 80), type=socket.SOCK_STREAM
        )
        addresses = [ip_address(entry[4][0]) for entry in found]
        for address in addresses:
            if not address.is_global and str(address) not in self._hosts:
                raise ForbiddenAddress(
                    f"{url.raw_host.decode()} has the address {address}, which is not public"
                )
        return addresses[0]


def _ascii_host(host: str) -> str:
    """Return a host as requests name it: in lower case, with the Punycode of an international name."""
    try:
        return httpx.URL(scheme="http", host=host).raw_host.decode()
    except httpx.InvalidURL:  # no URL has this host
        return host
