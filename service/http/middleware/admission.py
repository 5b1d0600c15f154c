"""Admission of uploads before any other work on a request.

Under overload there may be more rejections than answers, and each takes time from the requests in progress.
So a request is rejected before it is routed and its parameters are parsed, which would be a large part of the
cost of a rejection.
"""

from __future__ import annotations

from collections.abc import Iterable

from fastapi.routing import APIRoute
from fastapi.security.utils import get_authorization_scheme_param
from starlette.datastructures import Headers, QueryParams
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import ModelNotFound, NotReady, Overloaded
from service.http import problems
from service.http.context import record_of
from service.http.service import Service
from service.pipeline.recognizer import RecognizerState


class AdmissionMiddleware:
    """Admits or rejects requests for the routes that take an upload, inside the `RequestMiddleware`.

    Args:
        app: answers the admitted requests, and all others.
        service: the service.
        routes: the routes, whose paths have no parameters.
    """

    def __init__(self, app: ASGIApp, service: Service, routes: Iterable[APIRoute]) -> None:
        self._app = app
        self._service = service
        self._routes = {(method, route.path): route for route in routes for method in route.methods or ()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reject one request, or pass it on with its ticket."""
        route = self._routes.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if route is None or not self._may_be_admitted(scope):
            await self._app(scope, receive, send)
            return
        recognizer = self._service.recognizer
        try:
            # Assumes one view and the time limit of the service. The route checks again if the parsed
            # parameters exceed that.
            model = recognizer.models.registry.get(QueryParams(scope["query_string"]).get("model"))
            ticket = recognizer.admission.admit(
                model.graph.manifest.name, timeout_s=self._service.settings.request_timeout_s
            )
        except (ModelNotFound, NotReady):
            await self._app(scope, receive, send)  # the route checks parameters and keys first
        except Overloaded as exc:
            scope["route"] = route  # for the label of the metrics
            record = record_of(HTTPConnection(scope))
            record.problem = exc.code
            answer = problems.problem_response(exc, record.request_id, scope["path"])
            await answer(scope, receive, send)
        else:
            record_of(HTTPConnection(scope)).ticket = ticket
            try:
                await self._app(scope, receive, send)
            finally:
                ticket.release()

    def _may_be_admitted(self, scope: Scope) -> bool:
        """Whether the service accepts requests, and the caller has a key if keys are set."""
        if self._service.recognizer.state is not RecognizerState.SERVING:
            return False
        keys = self._service.keys
        if keys.open:
            return True
        scheme, key = get_authorization_scheme_param(Headers(scope=scope).get("authorization"))
        caller = keys.find(key) if scheme.lower() == "bearer" else None
        record_of(HTTPConnection(scope)).caller = caller
        return caller is not None
