"""What the Machina of coroutines and the one that blocks have in common: a handle, and how it is asked.

Both ask in the same coroutines, which are those of :class:`machina.Machina`. Without a loop the native half
blocks until it has the answer, so such a coroutine never waits, and comes to its end in one go: ``finished``.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, ParamSpec, TypeVar, cast

from . import _asking as asking
from . import _machina
from ._remembered import Remembered
from ._tools import Loop, Native
from .exceptions import Unavailable

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from typing_extensions import Self

    from . import models

P = ParamSpec("P")
T = TypeVar("T")

#: Where a native function puts its progress, in JSON.
Tell = Callable[[bytes], object]


class Facade:
    """A registry of MCP servers, and the router of calls to them."""

    #: How it is opened, and where its functions run.
    _how: ClassVar[str]
    _runner: ClassVar[Callable[[], Loop]]

    def __init__(
        self,
        url: str = "memory:",
        *,
        config: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        monitor: bool = True,
    ) -> None:
        self.url = asking.string(url, "url")
        self._options = asking.options(config, environment, monitor)
        self._opened: _machina.Handle | None = None
        #: The Machina itself, where this one acts on behalf of someone.
        self._parent: Self | None = None
        #: That someone: identity, role and tenant.
        self._someone: tuple[str, str, str | None] | None = None
        self._native = Native(type(self)._runner)
        self._remembered = Remembered()

    def _loop(self) -> AbstractEventLoop | None:
        """The loop that waits; without one, the thread does."""
        raise NotImplementedError

    def _telling(self, progress: Callable[[models.Progress], object]) -> AbstractContextManager[Tell]:
        """What tells ``progress`` of the progress of a call, while it runs."""
        raise NotImplementedError

    async def _open(self) -> None:
        if self._opened is not None:
            raise Unavailable("it is open already, or was: make another")
        opened = _machina.open(self._loop(), self.url, self._options)
        self._opened = opened if isinstance(opened, _machina.Handle) else await opened
        self._native.opened(self._opened)
        await self._declare()

    def __del__(self) -> None:
        opened = getattr(self, "_opened", None)
        if opened is not None and self._parent is None and not opened.is_closed:
            warnings.warn(f"{self!r} was not closed", ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        state = "not opened" if self._opened is None else "closed" if self._opened.is_closed else "open"
        return f"<{type(self).__module__}.{type(self).__name__} {state}>"

    @property
    def is_here(self) -> bool:
        """Whether it is in this process, and not one that runs elsewhere."""
        return self._handle.is_here

    @property
    def _whole(self) -> Self:
        return self._parent or self

    @property
    def _handle(self) -> _machina.Handle:
        if self._opened is None:
            raise Unavailable(f"it is not open: use {self._how}")
        return self._opened

    async def _ready(self) -> _machina.Handle:
        """The handle, when everything is declared that was made a tool."""
        handle = self._handle
        if self._whole._native.undeclared:
            await self._whole._declare()
        return handle

    async def _do(self, ask: asking.Ask[T]) -> T:
        question, read = ask
        answer = (await self._ready()).ask(self._loop(), question)
        # What is read out of memory is there at once.
        return read(answer if isinstance(answer, bytes) else await answer)

    async def _declare(self) -> None:
        # Several may come here at once; to declare it twice is to declare it.
        for service in tuple(self._native.undeclared):
            await self._declared(service, None)

    async def _declared(self, service: str, spec: bytes | None) -> models.Service:
        answer = self._handle.declare(self._loop(), service, spec)
        declared = answer if isinstance(answer, bytes) else await answer
        self._native.undeclared.discard(service)
        return asking.a_service(declared)

    async def _withdrawn(self, service: str) -> None:
        self._native.undeclared.discard(service)
        withdrawn = self._handle.withdraw(self._loop(), service)
        if not isinstance(withdrawn, bytes):
            await withdrawn

    def tool(self, service: str, **about: Any) -> Callable[[Callable[..., T]], Callable[..., T]]:
        """Makes a function a tool of ``service``: see :meth:`NativeService.tool`.

        The service is declared before anything else is asked of this Machina. An ``async def`` runs in the
        loop in which it was opened; of a ``machina.sync.Machina``, in a loop of its own.
        """
        return self._native.decorator(service, about, eager=True)

    def scoped(self, id: str, role: str = "viewer", *, tenant: str | None = None, remote: bool = False) -> Self:
        """The same Machina as someone else sees it, who may do only what that role may.

        ``role`` is ``viewer``, ``developer`` (may call) or ``admin``. Closed together with this one.
        """
        machina = type(self)(self.url)
        machina._parent, machina._someone = self._whole, (id, role, tenant)
        machina._opened = self._handle.scoped(asking.principal(id, role, tenant, remote))
        machina._native = self._whole._native.lent(machina._opened)
        return machina

    def _from_outside(self) -> Self:
        """The same for who asks over the network, with no say in which commands this process starts."""
        id, role, tenant = self._someone or ("http", "admin", None)
        return self._whole.scoped(id, role, tenant=tenant, remote=True)


def finished(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine gives that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return cast("T", end.value)
    coroutine.close()
    raise RuntimeError("it waited, without a loop")


def blocking(method: Callable[Concatenate[Any, P], Awaitable[T]]) -> Callable[Concatenate[Any, P], T]:
    """The method that blocks, of the one that is awaited: with its parameters, types and docstring."""

    @functools.wraps(method)
    def called(self: Facade, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return finished(cast("Coroutine[Any, Any, T]", method(self, *args, **kwargs)))

    return called
