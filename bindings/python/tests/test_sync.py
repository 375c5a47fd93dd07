"""``machina.sync``: the same names, blocking, wherever one stands."""

from __future__ import annotations

import asyncio
import inspect
import pydoc
import threading

import pytest
from conftest import asynchronous

import machina
import machina.sync


def test_the_names_and_parameters_are_the_same() -> None:
    def public(cls: type) -> dict[str, list[str]]:
        names = {name for name in dir(cls) if not name.startswith("_")}
        members = {name: inspect.getattr_static(cls, name) for name in names}
        functions = {n: getattr(m, "__func__", getattr(m, "fget", m)) for n, m in members.items()}
        return {name: [str(p) for p in inspect.signature(f).parameters.values()] for name, f in functions.items()}

    assert public(machina.Machina) == public(machina.sync.Machina) and len(public(machina.Machina)) > 25
    assert set(machina.sync.__all__) <= set(machina.__all__)
    assert machina.sync.NotFound is machina.NotFound


def test_the_help_is_that_of_the_coroutines() -> None:
    for name, method in inspect.getmembers(machina.sync.Machina, inspect.isfunction):
        if name.startswith("_"):
            continue
        of = getattr(machina.Machina, name)
        assert not inspect.iscoroutinefunction(method) and method.__doc__, name
        if name not in ("native", "watch"):
            assert (method.__doc__, inspect.signature(method)) == (of.__doc__, inspect.signature(of)), name
    shown = pydoc.plain(pydoc.render_doc(machina.sync.Machina.find))
    # From Python 3.13 on each parameter has a line of its own.
    assert "find(self,text:'str|None'=None,*,healthy" in "".join(shown.split()) and "words that all occur" in shown


def test_a_whole_life() -> None:
    with machina.sync.Machina("memory:") as m:
        m.register({"name": "time", "tags": ["clock"]})
        assert m.get("time").tags == ["clock"] and [one.name for one in m.find(tags="clock")] == ["time"]
        events = m.watch(since=0)
        assert next(events).service == "time"
        steps: list[float] = []
        told = threading.Event()

        @m.tool(service="pricing", read_only=True)
        async def quote(amount: float, context: machina.ToolContext) -> dict[str, float]:
            """What an amount costs with tax."""
            context.progress(1, 2, "half")
            await asyncio.sleep(0.01)
            return {"price": amount * 1.2}

        @m.tool(service="pricing")
        def shout(text: str) -> str:
            return text.upper()

        def tell(step: machina.models.Progress) -> None:
            steps.append(step.progress)
            told.set()

        answer = m.call("pricing", "quote", {"amount": 10}, progress=tell)
        assert answer.structured_content == {"price": 12.0} and told.wait(5) and steps == [1]
        assert m.call("pricing", "shout", {"text": "a"}).text == "A"
        assert m.find_tools("tax")[0].name == "quote" and m.explain("pricing").candidates
        assert m.health("pricing").status == "healthy" and m.overview().tools == 2
        m.put_group({"name": "desk"})
        assert [group.name for group in m.groups()] == ["desk"]
        m.native("pricing").withdraw()
        with pytest.raises(machina.Unavailable):
            m.call("pricing", "quote", {"amount": 1})
        m.deregister("time")
    with pytest.raises(machina.Unavailable):
        m.find()


@asynchronous
async def test_it_works_in_the_thread_of_a_running_loop() -> None:
    with machina.sync.Machina("memory:") as m:

        @m.tool(service="echo")
        async def echo(text: str) -> str:
            await asyncio.sleep(0.01)
            return text

        assert m.call("echo", "echo", {"text": "a"}).text == "a"
        assert await asyncio.to_thread(m.call, "echo", "echo", {"text": "b"}) is not None


def test_what_is_wrong_is_named() -> None:
    with machina.sync.Machina("memory:") as m:
        for wrong in ("x", -1, 2**64):
            with pytest.raises(machina.Invalid, match="since"):
                m.watch(wrong)
        with pytest.raises(machina.Invalid, match="service"):
            m.native(5)
        with pytest.raises(machina.Invalid, match="mutations"):
            m.apply(5)
    with pytest.raises(machina.Invalid, match="url"):
        machina.sync.Machina(5)


def test_many_threads_use_one_handle() -> None:
    with machina.sync.Machina("memory:") as m:

        @m.tool(service="math", executions_max=64)
        def double(n: int) -> int:
            return 2 * n

        doubled: list[str] = []
        threads = [
            threading.Thread(target=lambda n=n: doubled.append(m.call("math", "double", {"n": n}).text))
            for n in range(32)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert sorted(map(int, doubled)) == [2 * n for n in range(32)]
