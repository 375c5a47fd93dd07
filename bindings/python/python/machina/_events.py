"""Streams of events: subscribed when they are made, so that nothing is missed that happens later."""

from __future__ import annotations

import asyncio
from collections import deque
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

    #: What the next reader waits for.
    _asked: asyncio.Future[bytes | None] | None = None
    _opening: Any = None

    def __init__(self, handle: _machina.Handle, since: int | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._opening = handle.watch(self._loop, asking.revision(since))
        self._ready: deque[models.Event] = deque()
        self._ended = False

    def __del__(self) -> None:
        # What a reader left that was cancelled, when no other came.
        for left in (self._opening, self._asked):
            if isinstance(left, asyncio.Future) and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(left.cancel)

    async def opened(self) -> Self:
        """Waits until nothing is missed any more."""
        opening = self._opening
        if isinstance(opening, asyncio.Future):
            await self._done(opening)
            if self._opening is opening:
                self._opening = opening.result()
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> models.Event:
        while not self._ended:
            if self._ready:
                return self._ready.popleft()
            await self.opened()
            if not self._ended:
                await self._more()
        raise StopAsyncIteration

    async def _more(self) -> None:
        if self._asked is None:
            self._asked = cast("asyncio.Future[bytes | None]", self._opening.next(self._loop))
        asked = self._asked
        await self._done(asked)
        if self._asked is not asked:
            # Another reader has it, or the stream was ended.
            return
        self._asked = None
        answer = asked.result()
        if answer is None:
            self._ended = True
        else:
            self._ready.extend(asking.some_events(answer))

    async def _done(self, future: asyncio.Future[Any]) -> None:
        """Waits for ``future``. A reader that is cancelled leaves it to the next one: events may be in it."""
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("a stream of events is read in the loop in which it was made")
        await asyncio.wait([future])

    async def __aenter__(self) -> Self:
        return await self.opened()

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ends the stream."""
        self._ended = True
        for waited in (self._opening, self._asked):
            if isinstance(waited, asyncio.Future):
                waited.cancel()
        self._opening = self._asked = None


class BlockingEvents:
    """What changes, to be read by ``for``, which waits. Ends when the Machina is closed, or with ``close()``."""

    def __init__(self, handle: _machina.Handle, since: int | None) -> None:
        self._watch = cast("_machina.Watch | None", handle.watch(None, asking.revision(since)))
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
