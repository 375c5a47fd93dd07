"""For tests of programs that embed a Machina: one in memory, with services and tools of the test.

>>> import asyncio
>>> from machina.testing import machina_with
>>> async def test():
...     async with machina_with({"weather": {"forecast": lambda city: f"Rain in {city}."}}) as m:
...         return (await m.call("weather", "forecast", {"city": "Oslo"})).text
>>> asyncio.run(test())
'Rain in Oslo.'
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from .registry import Machina

__all__ = ["machina_with"]


@asynccontextmanager
async def machina_with(
    tools: Mapping[str, Mapping[str, Callable[..., Any]]] | None = None,
    *,
    services: Iterable[Mapping[str, Any]] = (),
    url: str = "memory:",
) -> AsyncIterator[Machina]:
    """A Machina whose ``tools`` are functions, by service and name: no process, no network.

    ``services`` are declared beside them, and are not started or probed until they are called.
    """
    async with Machina(url, monitor=False) as m:
        for service in services:
            await m.put(service)
        for name, functions in (tools or {}).items():
            native = m.native(name)
            for tool, function in functions.items():
                native.tool(function, name=tool)
            await native.register()
        yield m
