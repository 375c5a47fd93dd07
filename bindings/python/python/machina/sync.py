"""``machina.sync``: the same names, blocking. For programs without a loop, and for blocking code
inside one: no method here needs the loop of its thread, or waits for it.

>>> from machina.sync import Machina
>>> with Machina("memory:") as m:
...     m.register({"name": "time"}).name
'time'
"""

from __future__ import annotations

import queue
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from . import _asking as asking
from . import _machina
from ._events import BlockingEvents
from ._remembered import Remembered
from ._threads import in_thread
from ._tools import Native, NativeService, thread_runner
from .exceptions import (
    Conflict,
    Forbidden,
    Internal,
    Invalid,
    Lost,
    MachinaError,
    NotFound,
    Overloaded,
    Rejected,
    Timeout,
    Unauthenticated,
    Unavailable,
    Unreachable,
    Unsupported,
)

if TYPE_CHECKING:
    from datetime import datetime, timedelta
    from types import TracebackType

    from typing_extensions import Self

    from . import models

T = TypeVar("T")

__all__ = [
    "Conflict",
    "Forbidden",
    "Internal",
    "Invalid",
    "Lost",
    "Machina",
    "MachinaError",
    "NotFound",
    "Overloaded",
    "Rejected",
    "Timeout",
    "Unauthenticated",
    "Unavailable",
    "Unreachable",
    "Unsupported",
]


class Machina:
    """A registry of MCP servers, and the router of calls to them: see :class:`machina.Machina`."""

    def __init__(
        self,
        url: str = "memory:",
        *,
        config: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        monitor: bool = True,
    ) -> None:
        self.url = url
        self._options = asking.options(config, environment, monitor)
        self._opened: _machina.Handle | None = None
        #: The Machina itself, where this one acts on behalf of someone.
        self._parent: Machina | None = None
        self._native = Native(thread_runner)
        self._remembered = Remembered()

    @classmethod
    def open(cls, url: str = "memory:", **options: Any) -> Self:
        """Opens the Machina at ``url``; the options are those of the class."""
        machina = cls(url, **options)
        machina._open()
        return machina

    def _open(self) -> None:
        if self._opened is not None:
            raise Unavailable("it is open already, or was: make another")
        self._opened = cast("_machina.Handle", _machina.open(None, self.url, self._options))
        self._native.opened(self._opened)
        self._declare()

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        opened = getattr(self, "_opened", None)
        if opened is not None and self._parent is None and not opened.is_closed:
            warnings.warn(f"{self!r} was not closed", ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        state = "not opened" if self._opened is None else "closed" if self._opened.is_closed else "open"
        return f"<{type(self).__module__}.{type(self).__name__} {state}>"

    @property
    def _whole(self) -> Machina:
        return self._parent or self

    @property
    def is_here(self) -> bool:
        """Whether it is in this process, and not one that runs elsewhere."""
        return self._handle.is_here

    @property
    def _handle(self) -> _machina.Handle:
        if self._opened is None:
            raise Unavailable("it is not open: use `with`, or `Machina.open(url)`")
        return self._opened

    def _do(self, ask: asking.Ask[T]) -> T:
        question, read = ask
        handle = self._handle
        if self._whole._native.undeclared:
            self._whole._declare()
        return read(cast("bytes", handle.ask(None, question)))

    def close(self) -> None:
        """Ends what it started: probes, sessions, child processes; closes the store. Once."""
        if self._opened is not None:
            self._opened.close(None)

    # Reading

    def get(self, name: str) -> models.Service:
        """The service of this name, or of this identity."""
        handle = self._handle
        if self._whole._native.undeclared:
            self._whole._declare()
        return self._remembered.get(handle, name) if handle.is_here else self._do(asking.get(name))

    def find(
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
        """One page of services: those that fit everything that is said."""
        filters = {
            "name": name, "status": status, "tags": tags, "capability": capability, "build_type": build_type,
            "build_priority": build_priority, "required": required, "enabled": enabled, "region": region,
            "environment": environment, "tenant": tenant, "category": category, "tool": tool,
        }  # fmt: skip
        return self._do(asking.find(text, healthy, order, cursor, limit, filters))

    def tools(
        self, service: str | None = None, *, cursor: str | None = None, limit: int | None = None
    ) -> models.Page[models.Tool]:
        """One page of tools, of one service or of all; ``limit`` is 1 to 1000, 100 by default."""
        return self._do(asking.tools(service, cursor, limit))

    def get_tool(self, service: str, tool: str) -> models.Tool:
        """One tool of a service."""
        return self._do(asking.tool(service, tool))

    def find_tools(self, text: str, *, limit: int = 10) -> list[models.Tool]:
        """The tools that fit ``text`` best, best first; ``limit`` is 1 to 100."""
        return self._do(asking.find_tools(text, limit))

    def health(self, name: str) -> models.ServiceHealth:
        """The health of a service and of each of its instances."""
        return self._do(asking.health(name))

    def explain(self, service: str, tool: str | None = None) -> models.Explanation:
        """Why a call would go where it would go."""
        return self._do(asking.explain(service, tool))

    def overview(self) -> models.Overview:
        """The registry in numbers."""
        return self._do(asking.overview())

    def journal(
        self,
        kind: str = "transition",
        *,
        service: str | None = None,
        instance: str | None = None,
        since: datetime | str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> models.JournalPage:
        """Entries of the journal, newest first. Only of a Machina in this process."""
        return self._do(asking.journal(kind, service, instance, since, cursor, limit))

    def watch(self, since: int | None = None) -> BlockingEvents:
        """Everything that changes from now on, or since a revision: ``for event in m.watch()``."""
        return BlockingEvents(self._handle, since)

    # Writing

    def register(self, service: asking.Record) -> models.Service:
        """Registers a new service: a mapping, a model or JSON. Its instances are probed at once."""
        return self._do(asking.one("register", asking.plain(service, "service")))

    def put(self, service: asking.Record) -> models.Service:
        """Registers a service, in the place of the one of its name if there is one."""
        return self._do(asking.one("put", asking.plain(service, "service")))

    def update(self, name: str, service: asking.Record, *, expected: int | None = None) -> models.Service:
        """Replaces the declaration of a service; with ``expected``, only if it is at that revision."""
        spec = asking.plain(service, "service")
        return self._do(asking.one("update", {"name": name, "spec": spec, "expected": expected}))

    def deregister(self, name: str, *, expected: int | None = None) -> int:
        """Removes a service, and gives the revision at which it is gone."""
        return self._do(asking.deregister(name, expected))

    def set_admin_state(
        self, name: str, admin_state: str, *, instance: str | None = None, reason: str | None = None
    ) -> models.Service:
        """Says something about a service, or one instance of it."""
        said = {"name": name, "instance": instance, "admin_state": admin_state, "reason": reason}
        return self._do(asking.one("set_admin_state", said))

    def pin_tools(self, name: str, *, pinning: str | None = None) -> models.Service:
        """Pins the tools of a service as its instances publish them now."""
        return self._do(asking.one("pin_tools", {"name": name, "pinning": pinning}))

    def apply(self, mutations: Iterable[Mapping[str, Any]]) -> models.Applied:
        """Applies mutations, such as ``{"put": {…}}``: all of them, or none."""
        return self._do(asking.apply(mutations))

    def groups(self) -> list[models.Group]:
        """Every group, by name."""
        return self._do(asking.groups())

    def group(self, name: str) -> models.Group:
        """The group of this name."""
        return self._do(asking.group(name))

    def put_group(
        self, group: asking.Record, *, expected: int | None = None, create_only: bool = False
    ) -> models.Group:
        """Makes a group, or replaces its declaration."""
        return self._do(asking.put_group(group, expected, create_only))

    def remove_group(self, name: str, *, expected: int | None = None) -> int:
        """Removes a group, and gives the revision at which it is gone."""
        return self._do(asking.remove_group(name, expected))

    # Using

    def call(
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

        ``progress`` is called in a thread of its own.
        """
        asking.check_callable(progress, "progress")
        question = asking.call(service, tool, arguments, timeout, idempotency_key, affinity_key, meta)
        handle = self._handle
        if self._whole._native.undeclared:
            self._whole._declare()
        if progress is None:
            return asking.a_result(cast("bytes", handle.call(None, question, None)))
        steps: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

        def tell() -> None:
            while (step := steps.get()) is not None:
                progress(asking.a_progress(step))

        in_thread(tell)
        try:
            return asking.a_result(cast("bytes", handle.call(None, question, steps.put)))
        finally:
            steps.put(None)

    def check(self, name: str) -> models.ServiceHealth:
        """Probes every instance of a service now. Only of a Machina in this process."""
        return self._do(asking.check(name))

    def heartbeat(self, service: str, instance: str | None = None) -> models.Heartbeat:
        """Says that an instance that registered itself is alive."""
        return self._do(asking.heartbeat(service, instance))

    # Functions of this program as tools

    def native(self, service: str) -> NativeService[models.Service, None]:
        """The functions of this program that are the tools of ``service``."""
        return NativeService(self._native, service, self._declared, self._withdrawn)

    def tool(self, service: str, **about: Any) -> Callable[[Callable[..., T]], Callable[..., T]]:
        """Makes a function a tool of ``service``: see :meth:`NativeService.tool`.

        The service is declared before anything else is asked of this Machina. An ``async def`` runs
        in a loop of its own.
        """
        return self._native.decorator(service, about, eager=True)

    def _declare(self) -> None:
        # Several may come here at once; to declare it twice is to declare it.
        for service in tuple(self._native.undeclared):
            self._declared(service, None)

    def _declared(self, service: str, spec: bytes | None) -> models.Service:
        answer = cast("bytes", self._handle.declare(None, service, spec))
        self._native.undeclared.discard(service)
        return asking.a_service(answer)

    def _withdrawn(self, service: str) -> None:
        self._native.undeclared.discard(service)
        self._handle.withdraw(None, service)

    # On behalf of someone

    def scoped(self, id: str, role: str = "viewer", *, tenant: str | None = None, remote: bool = False) -> Self:
        """The same Machina as someone else sees it, who may do only what that role may."""
        machina = type(self)(self.url)
        machina._parent = self._whole
        machina._opened = self._handle.scoped(asking.principal(id, role, tenant, remote))
        machina._native.opened(machina._opened)
        return machina
