"""``Machina``: the registry, as coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from . import _asking as asking
from ._events import Events
from ._facade import Facade, Tell
from ._tools import NativeService, loop_runner

if TYPE_CHECKING:
    from datetime import datetime, timedelta
    from types import TracebackType

    from typing_extensions import Self

    from . import models


class Machina(Facade):
    """A registry of MCP servers, and the router of calls to them.

    ``url`` says where: ``memory:``, ``sqlite:PATH`` or another store opens one in this process,
    ``https://…`` asks one that runs elsewhere. Opened by ``async with Machina(url) as m`` or
    ``m = await Machina.open(url)``, and closed with the block or ``await m.close()``.

    ``config`` is that of ``docs/reference/configuration.md`` (``health``, ``routing``, ``sessions``,
    ``stdio``, ``http``, …); ``environment`` is what placeholders and child processes may see, that of
    this process by default. With ``monitor=False`` nothing is started until it is called.
    """

    _how = "`async with`, or `await Machina.open(url)`"
    _runner = staticmethod(loop_runner)

    @classmethod
    async def open(cls, url: str = "memory:", **options: Any) -> Self:
        """Opens the Machina at ``url``; the options are those of the class."""
        machina = cls(url, **options)
        await machina._open()
        return machina

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _loop(self) -> asyncio.AbstractEventLoop | None:
        return asyncio.get_running_loop()

    def _telling(self, progress: Callable[[models.Progress], object]) -> AbstractContextManager[Tell]:
        loop = asyncio.get_running_loop()

        def tell(step: bytes) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(progress, asking.a_progress(step))

        return nullcontext(tell)

    async def close(self) -> None:
        """Ends what it started: probes, sessions, child processes; closes the store. Once."""
        if self._opened is not None:
            closing = self._opened.close(self._loop())
            if closing is not None:
                await closing

    # Reading

    async def get(self, name: str) -> models.Service:
        """The service of this name, or of this identity."""
        handle = await self._ready()
        return self._remembered.get(handle, name) if handle.is_here else await self._do(asking.get(name))

    async def find(
        self,
        text: str | None = None,
        *,
        healthy: bool | None = None,
        name: str | None = None,
        status: str | Iterable[str] | None = None,
        tags: str | Iterable[str] | None = None,
        capability: str | Iterable[str] | None = None,
        build_type: str | Iterable[str] | None = None,
        build_priority: str | Iterable[str] | None = None,
        required: bool | None = None,
        enabled: bool | None = None,
        region: str | None = None,
        environment: str | None = None,
        tenant: str | None = None,
        category: str | None = None,
        tool: str | None = None,
        order: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> models.Page[models.Service]:
        """One page of services: those that fit everything that is said.

        ``text`` are words that all occur, ``name`` may end in ``*``, ``tags`` and ``capability`` must
        all be there, of the other lists any. ``order`` is ``name``, ``created_at``, ``updated_at``,
        ``build_priority`` or ``status``, with ``-`` before it to reverse. ``cursor`` is ``next_cursor``
        of the page before; ``limit`` is 1 to 200, 50 by default.
        """
        filters = {
            "name": name, "status": status, "tags": tags, "capability": capability, "build_type": build_type,
            "build_priority": build_priority, "required": required, "enabled": enabled, "region": region,
            "environment": environment, "tenant": tenant, "category": category, "tool": tool,
        }  # fmt: skip
        return await self._do(asking.find(text, healthy, order, cursor, limit, filters))

    async def tools(
        self, service: str | None = None, *, cursor: str | None = None, limit: int | None = None
    ) -> models.Page[models.Tool]:
        """One page of tools, of one service or of all; ``limit`` is 1 to 1000, 100 by default."""
        return await self._do(asking.tools(service, cursor, limit))

    async def get_tool(self, service: str, tool: str) -> models.Tool:
        """One tool of a service."""
        return await self._do(asking.tool(service, tool))

    async def find_tools(self, text: str, *, limit: int = 10) -> list[models.Tool]:
        """The tools that fit ``text`` best, best first; ``limit`` is 1 to 100."""
        return await self._do(asking.find_tools(text, limit))

    async def health(self, name: str) -> models.ServiceHealth:
        """The health of a service and of each of its instances."""
        return await self._do(asking.health(name))

    async def explain(self, service: str, tool: str | None = None) -> models.Explanation:
        """Why a call would go where it would go."""
        return await self._do(asking.explain(service, tool))

    async def overview(self) -> models.Overview:
        """The registry in numbers."""
        return await self._do(asking.overview())

    async def journal(
        self,
        kind: str = "transition",
        *,
        service: str | None = None,
        instance: str | None = None,
        since: datetime | str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> models.JournalPage:
        """Entries of the journal, newest first: ``transition``, ``sample``, ``call``, ``alert``, ``audit``.

        Only of a Machina in this process.
        """
        return await self._do(asking.journal(kind, service, instance, since, cursor, limit))

    def watch(self, since: int | None = None) -> Events:
        """Everything that changes from now on, or since a revision: ``async for event in m.watch()``."""
        return Events(self._handle, since)

    # Writing

    async def register(self, service: asking.Record) -> models.Service:
        """Registers a new service: a mapping, a model or JSON. Its instances are probed at once."""
        return await self._do(asking.one("register", asking.plain(service, "service")))

    async def put(self, service: asking.Record) -> models.Service:
        """Registers a service, in the place of the one of its name if there is one."""
        return await self._do(asking.one("put", asking.plain(service, "service")))

    async def update(self, name: str, service: asking.Record, *, expected: int | None = None) -> models.Service:
        """Replaces the declaration of a service; with ``expected``, only if it is at that revision."""
        spec = asking.plain(service, "service")
        return await self._do(asking.one("update", {"name": name, "spec": spec, "expected": expected}))

    async def deregister(self, name: str, *, expected: int | None = None) -> int:
        """Removes a service, and gives the revision at which it is gone."""
        return await self._do(asking.deregister(name, expected))

    async def set_admin_state(
        self, name: str, admin_state: str, *, instance: str | None = None, reason: str | None = None
    ) -> models.Service:
        """Says something about a service, or one instance of it.

        ``enabled``, ``draining``, ``disabled``, ``maintenance`` or ``quarantined``.
        """
        said = {"name": name, "instance": instance, "admin_state": admin_state, "reason": reason}
        return await self._do(asking.one("set_admin_state", said))

    async def pin_tools(self, name: str, *, pinning: str | None = None) -> models.Service:
        """Pins the tools of a service as its instances publish them now."""
        return await self._do(asking.one("pin_tools", {"name": name, "pinning": pinning}))

    async def apply(self, mutations: Iterable[Mapping[str, Any]]) -> models.Applied:
        """Applies mutations, such as ``{"put": {…}}``: all of them, or none."""
        return await self._do(asking.apply(mutations))

    async def groups(self) -> list[models.Group]:
        """Every group, by name."""
        return await self._do(asking.groups())

    async def group(self, name: str) -> models.Group:
        """The group of this name."""
        return await self._do(asking.group(name))

    async def put_group(
        self, group: asking.Record, *, expected: int | None = None, create_only: bool = False
    ) -> models.Group:
        """Makes a group, or replaces its declaration."""
        return await self._do(asking.put_group(group, expected, create_only))

    async def remove_group(self, name: str, *, expected: int | None = None) -> int:
        """Removes a group, and gives the revision at which it is gone."""
        return await self._do(asking.remove_group(name, expected))

    # Using

    async def call(
        self,
        service: str,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | timedelta | None = None,
        idempotency_key: str | None = None,
        affinity_key: str | None = None,
        meta: Mapping[str, Any] | None = None,
        progress: Callable[[models.Progress], object] | None = None,
    ) -> models.ToolResult:
        """Calls a tool on a healthy instance, failing over where that is safe.

        ``timeout`` is in seconds. With ``idempotency_key`` the call may be repeated when its outcome is
        unknown. ``progress`` is called in the loop. A result whose ``is_error`` is true is an answer.
        """
        asking.check_callable(progress, "progress")
        question = asking.call(service, tool, arguments, timeout, idempotency_key, affinity_key, meta)
        handle = await self._ready()
        with nullcontext() if progress is None else self._telling(progress) as tell:
            answer = handle.call(self._loop(), question, tell)
            return asking.a_result(answer if isinstance(answer, bytes) else await answer)

    async def check(self, name: str) -> models.ServiceHealth:
        """Probes every instance of a service now. Only of a Machina in this process."""
        return await self._do(asking.check(name))

    async def heartbeat(self, service: str, instance: str | None = None) -> models.Heartbeat:
        """Says that an instance that registered itself is alive."""
        return await self._do(asking.heartbeat(service, instance))

    # Functions of this program as tools

    def native(self, service: str) -> NativeService[Awaitable[models.Service], Awaitable[None]]:
        """The functions of this program that are the tools of ``service``."""
        return NativeService(self._native, service, self._declared, self._withdrawn)
