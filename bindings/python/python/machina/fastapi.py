"""A Machina in a FastAPI application.

``MachinaLifespan`` opens it with the application and closes it with it, ``Registry`` is the parameter
that a path operation takes, ``router()`` is the REST surface to include, and ``problems(app)`` has
errors answered as the server of Machina answers them. Nothing is global: an application has its own
Machina, and ``dependency_overrides[get_machina]`` puts another in its place.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, FastAPI, Query, Request
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.requests import HTTPConnection

from . import models
from ._asking import REVISION_MAX
from ._events import Events
from .exceptions import MachinaError
from .registry import Machina

__all__ = ["MachinaLifespan", "Registry", "get_machina", "problems", "router"]

#: A lifespan, as FastAPI takes it.
Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]

#: The name under which the state of a lifespan has the Machina.
STATE = "machina"

_STATUS = {
    "invalid": 422,
    "unauthenticated": 401,
    "forbidden": 403,
    "not_found": 404,
    "conflict": 409,
    "overloaded": 429,
    "internal": 500,
    "unsupported": 501,
    "unreachable": 502,
    "lost": 502,
    "rejected": 502,
    "unavailable": 503,
    "timeout": 504,
}


class MachinaLifespan:
    """Opens a Machina when the application starts, and closes it when it ends.

    ``url`` and ``options`` are those of :class:`machina.Machina`; or ``url`` is a Machina that is not
    opened yet, such as one with tools. ``inner`` is the lifespan of the application itself: it runs
    inside, and its state is kept.
    """

    def __init__(self, url: str | Machina, inner: Lifespan | None = None, **options: Any) -> None:
        self._url, self._inner, self._options = url, inner, options

    def __call__(self, app: FastAPI) -> AbstractAsyncContextManager[Mapping[str, Any]]:
        return self._live(app)

    @asynccontextmanager
    async def _live(self, app: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        async with AsyncExitStack() as stack:
            machina = self._url if isinstance(self._url, Machina) else Machina(self._url, **self._options)
            await stack.enter_async_context(machina)
            app.state.machina = machina
            state = None if self._inner is None else await stack.enter_async_context(self._inner(app))
            yield {**(state or {}), STATE: machina}


async def get_machina(connection: HTTPConnection) -> Machina:
    """The Machina of the application; the dependency to override in tests."""
    state: Mapping[str, Any] = connection.scope.get("state") or {}
    machina = state.get(STATE) or getattr(connection.app.state, STATE, None)
    if not isinstance(machina, Machina):
        raise RuntimeError("the application has no Machina: give it `lifespan=MachinaLifespan(url)`")
    return machina


#: The parameter of a path operation: ``async def tools(m: Registry)``.
Registry = Annotated[Machina, Depends(get_machina)]


async def _outside(machina: Registry) -> Machina:
    # One that runs elsewhere sees to it itself that nobody has commands started.
    return machina._from_outside() if machina.is_here else machina


_Outside = Annotated[Machina, Depends(_outside)]


def problems(app: FastAPI) -> None:
    """Has errors of Machina answered as problems (RFC 9457), with the status of their kind."""
    app.add_exception_handler(MachinaError, _problem)


async def _problem(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, MachinaError)
    status = _STATUS.get(error.code, 500)
    headers = {} if error.retry_after is None else {"retry-after": str(max(1, round(error.retry_after)))}
    # In a problem, `instance` is the request.
    names = {"instance": "instance_id", "problems": "errors"}
    body = {
        **{names.get(name, name): value for name, value in error.context.items()},
        "type": f"urn:machina:error:{error.code}",
        "title": error.code.replace("_", " "),
        "status": status,
        "code": error.code,
        "detail": error.message,
    }
    return JSONResponse(body, status, headers, "application/problem+json")


def router(**options: Any) -> APIRouter:
    """The REST surface, to include under a prefix; ``options`` are those of ``APIRouter``.

    Whoever can reach it may do everything that may be done from outside: give it
    ``dependencies=[Depends(…)]`` that say who may. Errors are exceptions of Machina: see ``problems``.
    """
    routes = APIRouter(**{"tags": ["machina"], **options})

    @routes.get("/status")
    async def status(m: _Outside) -> models.Overview:
        return await m.overview()

    @routes.get("/services")
    async def services(
        m: _Outside,
        text: str | None = None,
        name: str | None = None,
        status: Annotated[list[str] | None, Query()] = None,
        tags: Annotated[list[str] | None, Query()] = None,
        order: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> models.Page[models.Service]:
        return await m.find(text, name=name, status=status, tags=tags, order=order, cursor=cursor, limit=limit)

    @routes.post("/services", status_code=201)
    async def register(m: _Outside, service: Annotated[dict[str, Any], Body()]) -> models.Service:
        return await m.register(service)

    @routes.get("/tools")
    async def tools(
        m: _Outside, service: str | None = None, cursor: str | None = None, limit: int | None = None
    ) -> models.Page[models.Tool]:
        return await m.tools(service, cursor=cursor, limit=limit)

    @routes.post("/tools:find")
    async def find_tools(
        m: _Outside, text: Annotated[str, Body()], limit: Annotated[int, Body()] = 10
    ) -> dict[str, list[models.Tool]]:
        return {"items": await m.find_tools(text, limit=limit)}

    @routes.get("/events")
    async def events(
        m: Registry, since: Annotated[int | None, Query(ge=0, le=REVISION_MAX)] = None
    ) -> StreamingResponse:
        # Before the answer begins, so that what is wrong is an error and not a stream that breaks off.
        events = await m.watch(since).opened()
        return StreamingResponse(_events(events), media_type="text/event-stream")

    # The name of a service may have a slash in it, so what follows it comes first.
    @routes.get("/services/{name:path}/health")
    async def health(m: _Outside, name: str) -> models.ServiceHealth:
        return await m.health(name)

    @routes.get("/services/{name:path}/explain")
    async def explain(m: _Outside, name: str, tool: str | None = None) -> models.Explanation:
        return await m.explain(name, tool)

    @routes.post("/services/{name:path}/heartbeat")
    async def heartbeat(m: _Outside, name: str, instance: str | None = None) -> models.Heartbeat:
        return await m.heartbeat(name, instance)

    @routes.post("/services/{name:path}/call", response_model_exclude_unset=True)
    async def call(
        m: _Outside,
        name: str,
        tool: Annotated[str, Body()],
        arguments: Annotated[dict[str, Any] | None, Body()] = None,
        timeout_ms: Annotated[int | None, Body()] = None,
        idempotency_key: Annotated[str | None, Body()] = None,
    ) -> models.ToolResult:
        timeout = None if timeout_ms is None else timeout_ms / 1000
        return await m.call(name, tool, arguments, timeout=timeout, idempotency_key=idempotency_key)

    @routes.get("/services/{name:path}")
    async def get(m: _Outside, name: str) -> models.Service:
        return await m.get(name)

    @routes.put("/services/{name:path}")
    async def update(
        m: _Outside, name: str, service: Annotated[dict[str, Any], Body()], expected: int | None = None
    ) -> models.Service:
        return await m.update(name, service, expected=expected)

    @routes.delete("/services/{name:path}")
    async def deregister(m: _Outside, name: str, expected: int | None = None) -> dict[str, int]:
        return {"revision": await m.deregister(name, expected=expected)}

    return routes


async def _events(events: Events) -> AsyncIterator[str]:
    async with events:
        yield ": watching\n\n"
        async for event in events:
            yield f"event: {event.type}\ndata: {event.model_dump_json(exclude_unset=True)}\n\n"
