"""What the tests have in common: programs in subprocesses, a served Machina, a slow tool."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import machina

ROOT = Path(__file__).resolve().parents[3]

#: How long a test in a loop, or a program, may take before it counts as hanging.
PATIENCE = 180

#: Lets 10,000 calls run at once.
WIDE = {"in_flight_max": 10_000, "queue_max": 100_000, "queue_timeout": "1m"}

#: Tools of a program that sleep, block, and end badly.
SLEEPER = """
    import asyncio, machina, os, sys, threading, time
    from machina import Machina

    async def with_sleeper(m):
        native = m.native("sleeper")

        @native.tool
        async def sleep(seconds: float) -> float:
            await asyncio.sleep(seconds)
            return seconds

        @native.tool
        def block(seconds: float) -> float:
            time.sleep(seconds)
            return seconds

        @native.tool
        def blow() -> None:
            raise ValueError("no such account")

        @native.tool
        def leave() -> None:
            sys.exit(3)

        await native.register()
"""


def asynchronous(test: Callable[..., Any]) -> Callable[..., None]:
    """Runs a test in a loop of its own, for so long as it may take."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), PATIENCE))

    return run


@contextlib.contextmanager
def computing() -> Iterator[None]:
    """A thread that computes meanwhile, and wants the interpreter all the time."""
    over = threading.Event()

    def compute() -> None:
        while not over.is_set():
            sum(range(1_000))

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def program(
    text: str, *, timeout: float = PATIENCE, expect: int | None = 0, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a Python program by itself; it must end, and with this code. One that hangs says where."""
    watched = f"import faulthandler\nfaulthandler.dump_traceback_later({timeout}, exit=True)\n"
    if "fork" in text:
        # At its end a child would wait for the watching thread of its parent.
        watched = ""
    ended = subprocess.run(
        [sys.executable, "-u", "-X", "faulthandler", "-c", watched + textwrap.dedent(text)],
        capture_output=True,
        text=True,
        timeout=timeout + 15,
        env={**os.environ, **(env or {})},
    )
    if expect is not None:
        assert ended.returncode == expect, f"code {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
    return ended


def binary(name: str) -> str:
    """A program of the workspace, which `test.sh` builds and names in the environment."""
    path = os.environ.get(f"MACHINA_{name.upper()}")
    if not path or not Path(path).is_file():
        pytest.fail(f"MACHINA_{name.upper()} must name the binary: run bindings/python/test.sh")
    return path


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Machina that is served by another process."""
    directory = tmp_path_factory.mktemp("served")
    config = directory / "machina.toml"
    config.write_text("[access]\nallow_stdio_registration = true\n[egress]\nallow = ['127.0.0.0/8']\n")
    arguments = ["--config", str(config), "--store", "memory:", "--json", "serve", "--listen", "127.0.0.1:0"]
    with (directory / "log").open("w") as log:
        server = subprocess.Popen([binary("binary"), *arguments], stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert server.stdout is not None
        import json

        yield json.loads(server.stdout.readline())["url"]
    finally:
        server.terminate()
        server.wait(20)
        assert server.stdout is not None
        server.stdout.close()


@pytest.fixture(scope="session")
def fixture_server() -> str:
    """The MCP server that the tests of the workspace use."""
    return binary("fixture")


async def until(what: Callable[[], object]) -> None:
    """Waits for as long as it takes, and then for the test's own limit."""
    while not what():
        await asyncio.sleep(0.02)


async def with_sleeper(m: machina.Machina, service: str = "sleeper") -> list[str]:
    """Gives `m` a tool that sleeps, and the list of what happened to its calls."""
    happened: list[str] = []
    native = m.native(service)

    @native.tool(executions_max=10_000)
    async def sleep(seconds: float) -> float:
        """Sleeps."""
        try:
            await asyncio.sleep(seconds)
            happened.append("slept")
        except asyncio.CancelledError:
            happened.append("cancelled")
            raise
        return seconds

    await native.register({"name": service, "routing_policy": WIDE})
    return happened
