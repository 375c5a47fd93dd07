"""``machina.sync``: the same names, blocking. For programs without a loop, and for blocking code
inside one: no method here needs the loop of its thread, or waits for it.

>>> from machina.sync import Machina
>>> with Machina("memory:") as m:
...     m.register({"name": "time"}).name
'time'
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from . import exceptions, registry
from ._asking import a_progress
from ._events import BlockingEvents
from ._facade import Facade, Tell, blocking, finished
from ._threads import in_thread
from ._tools import NativeService, thread_runner
from .exceptions import *  # noqa: F403

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from . import models

__all__ = ["Machina"]
__all__ += exceptions.__all__

_awaited = registry.Machina


class Machina(Facade):
    """A registry of MCP servers, and the router of calls to them: see :class:`machina.Machina`.

    Functions that are told of the progress of a call are called in a thread of their own.
    """

    _how = "`with`, or `Machina.open(url)`"
    _runner = staticmethod(thread_runner)

    @classmethod
    def open(cls, url: str = "memory:", **options: Any) -> Self:
        """Opens the Machina at ``url``; the options are those of the class."""
        machina = cls(url, **options)
        finished(machina._open())
        return machina

    def __enter__(self) -> Self:
        finished(self._open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _loop(self) -> None:
        return None

    @contextmanager
    def _telling(self, progress: Callable[[models.Progress], object]) -> Iterator[Tell]:
        steps: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

        def tell() -> None:
            while (step := steps.get()) is not None:
                progress(a_progress(step))

        in_thread(tell)
        try:
            yield steps.put
        finally:
            steps.put(None)

    close = blocking(_awaited.close)
    get = blocking(_awaited.get)
    find = blocking(_awaited.find)
    tools = blocking(_awaited.tools)
    get_tool = blocking(_awaited.get_tool)
    find_tools = blocking(_awaited.find_tools)
    health = blocking(_awaited.health)
    explain = blocking(_awaited.explain)
    overview = blocking(_awaited.overview)
    journal = blocking(_awaited.journal)
    register = blocking(_awaited.register)
    put = blocking(_awaited.put)
    update = blocking(_awaited.update)
    deregister = blocking(_awaited.deregister)
    set_admin_state = blocking(_awaited.set_admin_state)
    pin_tools = blocking(_awaited.pin_tools)
    apply = blocking(_awaited.apply)
    groups = blocking(_awaited.groups)
    group = blocking(_awaited.group)
    put_group = blocking(_awaited.put_group)
    remove_group = blocking(_awaited.remove_group)
    call = blocking(_awaited.call)
    check = blocking(_awaited.check)
    heartbeat = blocking(_awaited.heartbeat)

    def watch(self, since: int | None = None) -> BlockingEvents:
        """Everything that changes from now on, or since a revision: ``for event in m.watch()``."""
        return BlockingEvents(self._handle, since)

    def native(self, service: str) -> NativeService[models.Service, None]:
        """The functions of this program that are the tools of ``service``."""
        return NativeService(self._native, service, self._declare_now, self._withdraw_now)

    _declare_now = blocking(Facade._declared)
    _withdraw_now = blocking(Facade._withdrawn)
