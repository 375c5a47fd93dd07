"""Machina inside a Python program: a registry and router for MCP servers.

>>> import asyncio
>>> from machina import Machina
>>> async def main():
...     async with Machina("memory:") as m:
...         service = await m.register({"name": "time", "tags": ["clock"]})
...         return service.name, len(await m.find(tags="clock"))
>>> asyncio.run(main())
('time', 1)

``machina.sync`` has the same names without ``async``; ``machina.fastapi`` ties a Machina to an
application; ``machina.testing`` is for tests of programs that embed one.
"""

from __future__ import annotations

import atexit
import logging
import os
from typing import TYPE_CHECKING, Any

from . import _machina, exceptions
from ._tools import NativeService, ToolContext
from .exceptions import *  # noqa: F403
from .registry import Machina

if TYPE_CHECKING:
    from . import models as models

__version__: str = _machina.__version__

__all__ = ["Machina", "NativeService", "ToolContext", "__version__", "models"]
__all__ += exceptions.__all__

# Silent unless the program configures logging.
logging.getLogger("machina").addHandler(logging.NullHandler())
atexit.register(_machina.shutdown)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_machina.before_fork, after_in_parent=_machina.after_fork, after_in_child=_machina.forked
    )


def __getattr__(name: str) -> Any:
    # Pydantic takes longer to load than all the rest: only who needs it waits for it.
    if name == "models":
        import importlib

        return importlib.import_module(".models", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
