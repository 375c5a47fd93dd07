"""How fast the package is, against the same questions over HTTP to a served Machina, in one run.

    bindings/python/test.sh --bench [--quick]     # builds the package and the programs with `release`
    python bindings/python/bench.py [--quick]     # MACHINA_BINARY, MACHINA_FIXTURE: programs that are built

Both have 1,000 services, and the fixture server on its standard streams. Figures are medians. `--quick`
does a hundredth of everything, to see that it works.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import psutil

from machina import Machina, _machina

SERVICES = 1000
WIDE = {"in_flight_max": 10_000, "queue_max": 100_000, "queue_timeout": "1m"}


def row(what: str, figure: str, target: str = "") -> None:
    print(f"| {what} | {figure} | {target} |", flush=True)


async def median_us(ask: Callable[[], Awaitable[Any]], times: int) -> float:
    """How long one question takes: the median of ten rounds' means, in microseconds."""
    for _ in range(max(1, times // 10)):
        await ask()
    rounds = []
    for _ in range(10):
        began = time.perf_counter()
        for _ in range(max(1, times // 10)):
            await ask()
        rounds.append((time.perf_counter() - began) / max(1, times // 10) * 1e6)
    return statistics.median(rounds)


async def added_us(m: Machina, service: str, tool: str, arguments: dict[str, Any]) -> float:
    """What a call takes besides the time that the registry itself says it took, in microseconds."""
    began = time.perf_counter()
    answer = await m.call(service, tool, arguments)
    return (time.perf_counter() - began) * 1e6 - answer.meta["dev.machina/call"]["duration_ms"] * 1e3


def serve() -> tuple[subprocess.Popen[str], str]:
    binary = os.environ["MACHINA_BINARY"]
    config = tempfile.NamedTemporaryFile("w", suffix=".toml", delete=False)
    with config:
        config.write("[access]\nallow_stdio_registration = true\n")
    arguments = ["--config", config.name, "--store", "memory:", "--json", "serve", "--listen", "127.0.0.1:0"]
    server = subprocess.Popen([binary, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout is not None
    return server, json.loads(server.stdout.readline())["url"]


async def fill(m: Machina) -> None:
    described = [
        {"name": f"service-{n}", "description": f"Service number {n} of many.", "tags": [f"tag-{n % 10}", "all"]}
        for n in range(SERVICES)
    ]
    await m.apply([{"register": one} for one in described])
    fixture = {"stdio": {"command": os.environ["MACHINA_FIXTURE"], "args": ["stdio"]}}
    await m.register({"name": "fixture", "instances": [fixture]})
    while (await m.health("fixture")).status != "healthy" or not (await m.tools("fixture")).items:
        await asyncio.sleep(0.05)


async def questions(near: Machina, far: Machina, url: str, scale: float) -> None:
    """The same questions to one in this process and to one that is served."""
    async with httpx.AsyncClient(base_url=f"{url}/api/v1") as plain:
        body = {"tool": "add", "arguments": {"a": 2, "b": 3}}
        asked: list[tuple[str, Callable[[Machina], Awaitable[Any]], Callable[[], Awaitable[Any]], str]] = [
            ("get", lambda m: m.get("service-500"), lambda: plain.get("/services/service-500"), "≥ 50 times"),
            (
                "find, a page of 10",
                lambda m: m.find("number", tags="tag-5", limit=10),
                lambda: plain.get("/services", params={"text": "number", "tags": "tag-5", "limit": 10}),
                "",
            ),
            (
                "find_tools",
                lambda m: m.find_tools("add two numbers", limit=5),
                lambda: plain.post("/tools:find", json={"text": "add two numbers", "limit": 5}),
                "",
            ),
            (
                "call of a stdio server",
                lambda m: m.call("fixture", "add", body["arguments"]),  # type: ignore[arg-type]
                lambda: plain.post("/services/fixture/call", json=body),
                "",
            ),
        ]
        for name, of, over_http, target in asked:
            here = await median_us(lambda: of(near), int(20_000 * scale))
            there = await median_us(lambda: of(far), int(2_000 * scale))
            raw = await median_us(over_http, int(2_000 * scale))
            row(f"{name}: in process, µs", f"{here:.1f}")
            row(f"{name}: `Machina(\"{url.split(':')[0]}://…\")`, µs", f"{there:.0f} ({there / here:.0f} times)", target)
            row(f"{name}: httpx, µs", f"{raw:.0f} ({raw / here:.0f} times)", target)


async def calls(near: Machina, scale: float) -> None:
    native = near.native("bench")

    @native.tool(executions_max=10_000)
    async def nothing() -> None:
        """Does nothing."""

    @native.tool(executions_max=10_000)
    async def wait(seconds: float) -> None:
        """Waits."""
        await asyncio.sleep(seconds)

    await native.register({"name": "bench", "routing_policy": WIDE})
    row("call of a function that does nothing, in all, µs",
        f"{await median_us(lambda: near.call('bench', 'nothing'), int(10_000 * scale)):.1f}")
    for what, service, tool, arguments in (
        ("a function", "bench", "nothing", {}),
        ("a stdio server", "fixture", "add", {"a": 2, "b": 3}),
    ):
        added = [await added_us(near, service, tool, arguments) for _ in range(int(5_000 * scale))]
        row(f"what the binding adds to a call of {what}, µs", f"{statistics.mean(added):.0f}", "≤ 100")

    many, before = int(10_000 * scale), threading.active_count()
    began = time.perf_counter()
    await asyncio.gather(*(near.call("bench", "wait", {"seconds": 0.5}) for _ in range(many)))
    took = time.perf_counter() - began
    row(f"{many} calls that wait 0.5 s, at once, s", f"{took:.2f}, {threading.active_count() - before} threads more")

    alone = await asyncio.to_thread(speed, 2 * max(scale, 0.2))
    waiting = [asyncio.ensure_future(near.call("bench", "wait", {"seconds": 30})) for _ in range(1_000)]
    await asyncio.sleep(0.5)
    beside = await asyncio.to_thread(speed, 2 * max(scale, 0.2))
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    row("a thread that computes beside 1,000 calls that wait", f"{100 * beside / alone:.0f} % of its speed", "≥ 90 %")

    process, total, seen = psutil.Process(), int(120_000 * scale), []
    for done in range(total):
        if done >= total // 6 and done % (total // 60) == 0:
            seen.append((done, process.memory_info().rss))
        await near.call("bench", "nothing")
    slope, _ = statistics.linear_regression([x for x, _ in seen], [y for _, y in seen])
    row(f"RSS over {total - total // 6} calls", f"{slope:+.1f} bytes a call ({seen[0][1] >> 20} to {seen[-1][1] >> 20} MiB)",
        "no leak")


def speed(seconds: float) -> float:
    """How often a thread gets round in a second."""
    until, rounds = time.perf_counter() + seconds, 0
    while time.perf_counter() < until:
        sum(range(1_000))
        rounds += 1
    return rounds / seconds


def import_ms(statement: str) -> float:
    """How much longer a program takes that imports."""

    def took(statement: str) -> float:
        best = []
        for _ in range(10):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", statement], check=True)
            best.append(time.perf_counter() - began)
        return min(best) * 1000

    return took(statement) - took("pass")


async def main(scale: float) -> None:
    print("| what | figure | target |\n|---|---|---|")
    row("size of the extension, MiB", f"{Path(_machina.__file__).stat().st_size / 2**20:.1f}")
    alone = "import sys; from machina import Machina; assert 'pydantic' not in sys.modules"
    row("`from machina import Machina`, without Pydantic, ms", f"{import_ms(alone):.0f}", "≤ 150")
    row("… with the models, ms", f"{import_ms('import machina.models'):.0f}")
    server, url = await asyncio.to_thread(serve)
    try:
        async with Machina("memory:") as near, Machina(url) as far:
            await fill(near)
            await fill(far)
            await questions(near, far, url, scale)
            await calls(near, scale)
    finally:
        server.terminate()
        server.wait(20)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a hundredth of everything")
    asyncio.run(main(0.01 if parser.parse_args().quick else 1.0))
