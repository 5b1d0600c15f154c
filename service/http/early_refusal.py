"""A refusal for want of room, given before anything else is done for the request.

In an overload there may be more refusals than answers, and each takes time from the clips in work. So what is
refused at once anyway is not matched to its route first, nor are its parameters read and checked, which is a
good part of what a refusal takes.
"""

from __future__ import annotations

from collections.abc import Iterable

from fastapi.routing import APIRoute
from fastapi.security.utils import get_authorization_scheme_param
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import Overloaded
from service.http import problems
from service.http.context import record_of
from service.http.lifecycle import Lifecycle


class EarlyRefusalMiddleware:
    """Wraps an ASGI application, within the `RequestMiddleware`; see the module.

    Args:
        app: what answers the others.
        service: behind it.
        routes: those that take a clip. They have paths without parameters, and what is refused here would be
            refused by them, whatever it asks for beside the clip.
    """

    def __init__(self, app: ASGIApp, service: Lifecycle, routes: Iterable[APIRoute]) -> None:
        self._app = app
        self._service = service
        self._routes = {(method, route.path): route for route in routes for method in route.methods or ()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse one request, or pass it on."""
        if scope["type"] == "http" and (route := self._routes.get((scope["method"], scope["path"]))):
            refusal = self._refusal(scope)
            if refusal is not None:
                scope["route"] = route  # its label in the metrics
                record = record_of(HTTPConnection(scope))
                record.problem = refusal.code
                answer = problems.request_error(refusal, record.request_id, scope["path"])
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Overloaded | None:
        """Why there is no room for any clip; None where there is, or the caller has no right to know."""
        try:
            self._service.check_room()
        except Overloaded as exc:
            return exc if self._is_known(scope) else None
        return None

    def _is_known(self, scope: Scope) -> bool:
        keys = self._service.keys
        if keys.open:
            return True
        scheme, key = get_authorization_scheme_param(Headers(scope=scope).get("authorization"))
        return scheme.lower() == "bearer" and keys.find(key) is not None
