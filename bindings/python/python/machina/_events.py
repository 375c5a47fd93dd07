"""Streams of events: subscribed when they are made, so that nothing is missed that happens later."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, cast

from . import _asking as asking
from . import _machina

if TYPE_CHECKING:
    from typing_extensions import Self

    from . import models


class Events:
    """What changes, to be read by ``async for``. Ends when the Machina is closed, or with ``aclose()``.

    One of a registry in this process is subscribed at once; one of a Machina elsewhere when ``opened()``,
    ``async with`` or the first event has been awaited.
    """

    def __init__(self, handle: _machina.Handle, since: int | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._opening: Any = handle.watch(self._loop, since)
        self._ready: deque[models.Event] = deque()
        self._ended = False

    async def opened(self) -> Self:
        """Waits until nothing is missed any more."""
        if not isinstance(self._opening, _machina.Watch):
            self._opening = await self._opening
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> models.Event:
        while not self._ended:
            if self._ready:
                return self._ready.popleft()
            watch = (await self.opened())._opening
            answer = await cast("Awaitable[bytes | None]", watch.next(self._loop))
            if answer is None:
                break
            self._ready.extend(asking.some_events(answer))
        self._ended = True
        raise StopAsyncIteration

    async def __aenter__(self) -> Self:
        return await self.opened()

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ends the stream."""
        self._ended = True
        if isinstance(self._opening, asyncio.Future):
            self._opening.cancel()
        self._opening = None


class BlockingEvents:
    """What changes, to be read by ``for``, which waits. Ends when the Machina is closed, or with ``close()``."""

    def __init__(self, handle: _machina.Handle, since: int | None) -> None:
        self._watch = cast("_machina.Watch | None", handle.watch(None, since))
        self._ready: deque[models.Event] = deque()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> models.Event:
        while self._watch is not None:
            if self._ready:
                return self._ready.popleft()
            answer = cast("bytes | None", self._watch.next(None))
            if answer is None:
                break
            self._ready.extend(asking.some_events(answer))
        self._watch = None
        raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the stream."""
        self._watch = None
