"""Awaiting: coroutines like any other, cancelled like any other, thousands at once."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

import pytest
import uvloop
from conftest import PATIENCE, asynchronous, computing, until, with_sleeper

from machina import Machina, Timeout


@asynchronous
async def test_what_is_awaited_is_a_coroutine() -> None:
    async with Machina() as m:
        await with_sleeper(m)
        call = m.call("sleeper", "sleep", {"seconds": 0})
        assert inspect.iscoroutine(call)
        assert (await asyncio.create_task(call)).text == "0.0"


@asynchronous
async def test_a_call_that_is_cancelled_ends_what_it_began() -> None:
    async with Machina() as m:
        happened = await with_sleeper(m)
        task = asyncio.create_task(m.call("sleeper", "sleep", {"seconds": 30}))
        # One that has not begun has nothing to end.
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: happened)
        assert happened == ["cancelled"]
        assert (await m.call("sleeper", "sleep", {"seconds": 0})).text == "0.0"


@asynchronous
async def test_a_time_limit_of_asyncio_and_one_of_machina() -> None:
    async with Machina() as m:
        await with_sleeper(m)
        began = time.monotonic()
        with pytest.raises((asyncio.TimeoutError, TimeoutError)):
            await asyncio.wait_for(m.call("sleeper", "sleep", {"seconds": 30}), 0.1)
        with pytest.raises(Timeout):
            await m.call("sleeper", "sleep", {"seconds": 30}, timeout=0.1)
        assert time.monotonic() - began < 10


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.TaskGroup came with Python 3.11")
@asynchronous
async def test_a_task_group_takes_calls() -> None:
    async with Machina() as m:
        happened = await with_sleeper(m)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(m.call("sleeper", "sleep", {"seconds": 0.01})) for _ in range(20)]
        assert [task.result().text for task in tasks] == ["0.01"] * 20
        with pytest.raises(ExceptionGroup) as failed:  # noqa: F821
            async with asyncio.TaskGroup() as group:
                group.create_task(m.call("sleeper", "sleep", {"seconds": 30}))
                group.create_task(m.get("nobody"))
        assert failed.value.exceptions[0].code == "not_found"  # type: ignore[attr-defined]
        for _ in range(100):
            if "cancelled" in happened:
                break
            await asyncio.sleep(0.02)
        assert happened.count("cancelled") <= 1


@asynchronous
async def test_ten_thousand_wait_at_once() -> None:
    async with Machina() as m:
        await with_sleeper(m)
        before = threading.active_count()
        answers = await asyncio.gather(*(m.call("sleeper", "sleep", {"seconds": 0.5}, timeout=PATIENCE) for _ in range(10_000)))
        assert {answer.text for answer in answers} == {"0.5"}
        assert threading.active_count() <= before + 1, "they wait without a thread each"


@asynchronous
async def test_the_loop_goes_on_meanwhile() -> None:
    async with Machina() as m:
        await with_sleeper(m)
        longest, last = 0.0, time.monotonic()

        async def tick() -> None:
            nonlocal longest, last
            while True:
                await asyncio.sleep(0.001)
                now = time.monotonic()
                longest, last = max(longest, now - last), now

        ticking = asyncio.create_task(tick())
        await asyncio.gather(*(m.call("sleeper", "sleep", {"seconds": 3}) for _ in range(50)))
        ticking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ticking
        assert longest < 1.5, f"the loop stood still for {longest:.3f} s"


def test_loops_come_and_go_under_one_process() -> None:
    async def use() -> str:
        async with Machina() as m:
            await with_sleeper(m)
            return (await m.call("sleeper", "sleep", {"seconds": 0})).text

    assert [asyncio.run(use()) for _ in range(3)] == ["0.0"] * 3


def test_two_loops_in_two_threads_share_one_process() -> None:
    answers: list[str] = []

    async def use() -> None:
        async with Machina() as m:
            await with_sleeper(m)
            got = await asyncio.gather(*(m.call("sleeper", "sleep", {"seconds": 0.01}) for _ in range(50)))
            answers.extend(answer.text for answer in got)

    threads = [threading.Thread(target=asyncio.run, args=(use(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == ["0.01"] * 100


@asynchronous
async def test_a_thread_that_computes_does_not_stop_the_calls() -> None:
    async with Machina() as m:
        await with_sleeper(m)
        with computing():
            began = time.monotonic()
            for _ in range(20):
                await m.call("sleeper", "sleep", {"seconds": 0})
            assert time.monotonic() - began < 5


class Blind(asyncio.SelectorEventLoop):
    """A loop that watches nothing for others."""

    def add_reader(self, *_: object) -> NoReturn:
        raise NotImplementedError


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("kind", [uvloop.new_event_loop, Blind])
def test_a_loop_of_another_kind(kind: Callable[[], asyncio.AbstractEventLoop], debug: bool) -> None:
    async def use() -> None:
        async with Machina() as m:
            happened = await with_sleeper(m)
            await asyncio.gather(*(m.call("sleeper", "sleep", {"seconds": 0.01}) for _ in range(100)))
            with pytest.raises((asyncio.TimeoutError, TimeoutError)):
                await asyncio.wait_for(m.call("sleeper", "sleep", {"seconds": 30}), 0.05)
            assert happened[:100] == ["slept"] * 100

    loop = kind()
    loop.set_debug(debug)
    try:
        loop.run_until_complete(use())
    finally:
        loop.close()
