"""Threads that the end of the interpreter does not wait for.

Those of ``concurrent.futures`` are joined at exit: a function that never returns would keep the
process for ever.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable

_log = logging.getLogger("machina.tools")
_loops: dict[int, asyncio.AbstractEventLoop] = {}
_starting = threading.Lock()


def in_thread(function: Callable[[], object]) -> None:
    """Runs ``function`` in a thread of its own."""
    threading.Thread(target=function, name="machina-tool", daemon=True).start()


def own_loop() -> asyncio.AbstractEventLoop:
    """A loop that runs in a thread of its own: one in each process."""
    with _starting:
        loop = _loops.get(os.getpid())
        if loop is None:
            # That of a parent has no thread here.
            loop = _loops[os.getpid()] = asyncio.new_event_loop()
            threading.Thread(target=_run, args=(loop,), name="machina-loop", daemon=True).start()
        return loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    # It is that of every tool of the process: what one of them begins must not end it for the others.
    while not loop.is_closed():
        try:
            loop.run_forever()
        except BaseException as error:
            _log.error("what a tool began in the loop of the tools raised", exc_info=error)
            # If it is the loop itself that fails, it will again.
            time.sleep(0.1)


def _forget() -> None:
    global _starting
    _starting = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
