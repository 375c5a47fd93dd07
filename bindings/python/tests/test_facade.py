"""Every method of the facade, near and far."""

from __future__ import annotations

import asyncio
import gc
import pickle
from datetime import datetime, timedelta
from typing import Any

import pytest
from conftest import asynchronous, until, with_sleeper

import machina
from machina import Conflict, Invalid, Machina, MachinaError, NotFound, Timeout, Unavailable, Unsupported, models

TIME = {"name": "time", "description": "What time it is.", "tags": ["clock"], "build_priority": "HIGH"}


@asynchronous
async def test_a_service_is_registered_read_changed_and_removed() -> None:
    async with Machina() as m:
        service = await m.register(TIME)
        assert (service.name, service.tags, service.status, service.health.state) == (
            "time", ["clock"], "unknown", "unknown"
        )  # fmt: skip
        assert isinstance(service.created_at, datetime)
        assert await m.get("time") == await m.get(service.id)
        page = await m.find(text="TIME", tags="clock", build_priority="HIGH", order="-created_at")
        assert [one.name for one in page] == ["time"] and len(page) == 1 and page.revision == service.revision
        assert not await m.find(healthy=True) and len(await m.find(healthy=False)) == 1
        changed = await m.update("time", {"name": "time", "title": "Time"}, expected=service.revision)
        assert changed.title == "Time" and changed.revision > service.revision and changed.id == service.id
        assert (await m.get("time")).title == "Time", "what is remembered is no older than what was written"
        with pytest.raises(Conflict):
            await m.update("time", {"name": "time"}, expected=service.revision)
        drained = await m.set_admin_state("time", "maintenance", reason="new disks")
        assert (drained.status, drained.admin_reason, drained.enabled) == ("maintenance", "new disks", False)
        assert await m.deregister("time") > drained.revision
        with pytest.raises(NotFound) as missing:
            await m.get("time")
        assert missing.value.code == "not_found" and missing.value.context["service"] == "time"


@asynchronous
async def test_what_is_read_again_is_what_is_there() -> None:
    async with Machina() as m:
        await with_sleeper(m)
        first = await m.get("sleeper")
        assert await m.get("sleeper") is first, "nothing has changed"
        await m.set_admin_state("sleeper", "draining")
        assert (await m.get("sleeper")).admin_state == "draining", "a change is seen at once"
        await m.check("sleeper")
        await asyncio.sleep(1.1)
        assert (await m.get("sleeper")).health.last_check > first.health.last_check, "figures are a second old at most"
        for n in range(1100):
            await m.put({"name": f"s{n}"})
            assert (await m.get(f"s{n}")).name == f"s{n}"
        await m.deregister("s7")
        with pytest.raises(NotFound):
            await m.get("s7")


@asynchronous
async def test_records_may_be_mappings_models_or_json() -> None:
    async with Machina() as m:
        await m.register('{"name": "a"}')
        await m.put(b'{"name": "a", "title": "A"}')
        service = await m.get("a")
        assert (await m.put(service)).revision >= service.revision
        applied = await m.apply([{"register": {"name": "b"}}, {"deregister": {"name": "a"}}])
        assert [one.name for one in applied.services] == ["b"]
        with pytest.raises(Conflict):
            await m.apply([{"register": {"name": "c"}}, {"register": {"name": "b"}}])
        assert [one.name for one in await m.find()] == ["b"], "all or nothing"


@asynchronous
async def test_groups() -> None:
    async with Machina() as m:
        made = await m.put_group({"name": "desk", "members": [{"service": "time"}]}, create_only=True)
        assert made.missing == ["time"] and [group.name for group in await m.groups()] == ["desk"]
        with pytest.raises(Conflict):
            await m.put_group({"name": "desk"}, create_only=True)
        assert (await m.group("desk")).revision == made.revision
        await m.remove_group("desk", expected=made.revision)
        with pytest.raises(NotFound):
            await m.group("desk")


@asynchronous
async def test_calls_are_answered_explained_and_written_down() -> None:
    async with Machina() as m:
        await with_sleeper(m)
        answer = await m.call("sleeper", "sleep", {"seconds": 0.001}, timeout=timedelta(seconds=5))
        assert answer.text == "0.001" and not answer.is_error and answer.call.attempts == 1
        assert (await m.explain("sleeper", "sleep")).candidates[0].picked
        assert (await m.find_tools("sleeps"))[0].name == "sleep"
        assert (await m.tools("sleeper")).items[0].input_schema["required"] == ["seconds"]
        assert (await m.get_tool("sleeper", "sleep")).description == "Sleeps."
        health = await m.health("sleeper")
        assert health.status == "healthy" and health.instances[0].health.state == "healthy"
        assert (await m.check("sleeper")).status == "healthy"
        overview = await m.overview()
        assert (overview.services, overview.tools, overview.statuses["healthy"]) == (1, 1, 1)
        for _ in range(100):
            entries = (await m.journal("call", service="sleeper")).items
            if entries:
                break
            await asyncio.sleep(0.05)
        assert entries[0].kind == "call" and entries[0].tool == "sleep"
        assert (await m.heartbeat("sleeper")).lease is None
        with pytest.raises(Timeout) as late:
            await m.call("sleeper", "sleep", {"seconds": 30}, timeout=0.05)
        assert late.value.context["outcome"] == "unknown" and isinstance(late.value, TimeoutError)
        pinned = await m.pin_tools("sleeper", pinning="strict")
        assert pinned.routing_policy["pins"]


@asynchronous
async def test_events_are_followed_from_where_a_page_stood() -> None:
    async with Machina() as m:
        page = await m.find()
        await m.register({"name": "a"})
        seen: list[models.Event] = []
        events = m.watch(since=page.revision)
        async for event in events:
            seen.append(event)
            if event.service == "b":
                break
            await m.register({"name": "b"})
        assert [(event.type, event.service) for event in seen] == [
            ("service_registered", "a"),
            ("service_registered", "b"),
        ]
        await events.aclose()


@asynchronous
async def test_a_watcher_ends_when_the_handle_is_closed() -> None:
    m = await Machina.open("memory:")

    seen: list[str | None] = []

    async def follow() -> None:
        async for event in m.watch(0):
            seen.append(event.service)

    following = asyncio.create_task(follow())
    await m.register({"name": "a"})
    await until(lambda: seen)
    await m.close()
    await asyncio.wait_for(following, 30)
    assert seen == ["a"]


@asynchronous
async def test_a_reader_that_is_cancelled_loses_no_event() -> None:
    async with Machina() as m:
        events, seen = m.watch(), 0
        for n in range(300):
            reading = asyncio.ensure_future(anext(events))
            for _ in range(n % 3):
                await asyncio.sleep(0)
            await m.register({"name": f"s{n}"})
            for _ in range(n % 5):
                await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait([reading])
            if not reading.cancelled():
                assert reading.result().service == f"s{seen}"
                seen += 1
        while seen < 300:
            assert (await asyncio.wait_for(anext(events), 5)).service == f"s{seen}"
            seen += 1
        with pytest.raises((asyncio.TimeoutError, TimeoutError)):
            await asyncio.wait_for(anext(events), 0.05)
        await m.register({"name": "last"})
        await asyncio.sleep(0.1)
        assert (await asyncio.wait_for(anext(events), 5)).service == "last"


@asynchronous
async def test_readers_of_one_stream() -> None:
    async with Machina() as m:
        events = m.watch()
        readers = [asyncio.ensure_future(anext(events)) for _ in range(3)]
        await asyncio.sleep(0.05)
        await m.apply([{"register": {"name": f"s{n}"}} for n in range(3)])
        seen = await asyncio.wait_for(asyncio.gather(*readers), 5)
        assert sorted(event.service for event in seen) == ["s0", "s1", "s2"], "each event has one reader"

        async def rest() -> list[models.Event]:
            return [event async for event in events]

        waiting = asyncio.ensure_future(rest())
        await asyncio.sleep(0.05)
        await events.aclose()
        assert await asyncio.wait_for(waiting, 5) == [] and await rest() == []
        elsewhere = m.watch()
        with pytest.raises(RuntimeError, match="the loop in which it was made"):
            await asyncio.to_thread(lambda: asyncio.run(anext(elsewhere)))


@asynchronous
async def test_a_stream_that_is_dropped_is_asked_no_more() -> None:
    async with Machina() as m:
        left = m.watch()
        with pytest.raises((asyncio.TimeoutError, TimeoutError)):
            await asyncio.wait_for(anext(left), 0.05)
        asked = left._asked
        assert asked is not None and not asked.done()
        del left
        gc.collect()
        await asyncio.sleep(0.05)
        assert asked.cancelled(), "nobody comes back for it"


@asynchronous
async def test_what_someone_else_may_do() -> None:
    async with Machina() as m:
        await m.register({"name": "a", "tenant": "acme"})
        await m.register({"name": "b"})
        alice = m.scoped("alice", "viewer", tenant="acme")
        assert [one.name for one in await alice.find()] == ["a"]
        with pytest.raises(machina.Forbidden) as refused:
            await alice.register({"name": "c", "tenant": "acme"})
        assert isinstance(refused.value, PermissionError)
        with pytest.raises(machina.Forbidden):
            alice.native("pricing").tool(lambda: 1, name="x")
        with pytest.raises(machina.Forbidden):
            alice.scoped("root", "admin")
        bob = await asyncio.to_thread(m.scoped, "bob")
        assert [one.name for one in await bob.find()] == ["a", "b"], "it is made in any thread"


@asynchronous
async def test_what_is_kept_in_a_file_is_there_again(tmp_path: Any) -> None:
    url = f"sqlite:{tmp_path}/machina.db"
    async with Machina(url, monitor=False) as m:
        await m.register(TIME)
        with pytest.raises(Unavailable) as held:
            await Machina.open(url)
        assert "machina.db" in str(held.value)
    async with Machina(url) as m:
        assert (await m.get("time")).tags == ["clock"]


@pytest.mark.parametrize(
    ("do", "field"),
    [
        (lambda m: m.register({"name": "Not A Name"}), "name"),
        (lambda m: m.register({"name": "a", "colour": "red"}), "colour"),
        (lambda m: m.register({"name": "a", "instances": [{"stdio": {"command": "x"}, "weight": 0}]}), "weight"),
        (lambda m: m.register(17), "service"),
        (lambda m: m.register("{"), "service"),
        (lambda m: m.register({"name": object()}), "apply"),
        (lambda m: m.register({"name": "a", "metadata": {"x": float("nan")}}), "apply"),
        (lambda m: m.get(17), "service"),
        (lambda m: m.get(None), "service"),
        (lambda m: m.find(limit=0), "limit"),
        (lambda m: m.find(limit="many"), "limit"),
        (lambda m: m.find(text=17), "text"),
        (lambda m: m.find(status="splendid"), "status"),
        (lambda m: m.find(order="colour"), "order"),
        (lambda m: m.find(healthy=True, status="healthy"), "healthy"),
        (lambda m: m.find(cursor="no cursor"), "cursor"),
        (lambda m: m.find_tools("", limit=1), "text"),
        (lambda m: m.find_tools("x", limit=101), "limit"),
        (lambda m: m.find_tools("x", limit=-1), "limit"),
        (lambda m: m.tools(limit=0), "limit"),
        (lambda m: m.call("a", "b", timeout=0), "timeout_ms"),
        (lambda m: m.call("a", "b", timeout=-1), "timeout_ms"),
        (lambda m: m.call("a", "b", timeout="soon"), "timeout"),
        (lambda m: m.call("a", "b", timeout=float("inf")), "timeout"),
        (lambda m: m.call("a", "b", [1]), "arguments"),
        (lambda m: m.call("a", "b", {"x": object()}), "arguments"),
        (lambda m: m.call(1, "b"), "service"),
        (lambda m: m.call("a", "b", progress=1), "progress"),
        (lambda m: m.update("a", {"name": "a"}, expected="new"), "expected"),
        (lambda m: m.set_admin_state("a", "asleep"), "admin_state"),
        (lambda m: m.apply([{"forget": {}}]), "forget"),
        (lambda m: m.heartbeat("a", "no-uuid"), "instance"),
        (lambda m: m.journal("colour"), "kind"),
        (lambda m: m.journal("call", limit=0), "limit"),
        (lambda m: m.put_group({"name": "desk", "colour": 1}), "colour"),
        (lambda m: m.find(order=5), "order"),
        (lambda m: m.apply(5), "mutations"),
        (lambda m: m.apply(None), "mutations"),
        (lambda m: m.apply({"deregister": {"name": "a"}}), "mutations"),
        (lambda m: m.apply("a"), "mutations"),
        (lambda m: Machina.open(5), "url"),
        (lambda m: Machina.open(None), "url"),
        (lambda m: Machina.open("sqlite:\udcff"), "url"),
        (lambda m: Machina.open(config=5), "config"),
        (lambda m: Machina.open(config="x"), "config"),
        (lambda m: Machina.open(config=0), "config"),
        (lambda m: Machina.open(config={"health": object()}), "config"),
        (lambda m: Machina.open(environment=5), "environment"),
        (lambda m: Machina.open(environment={"A": 5}), "environment"),
        (lambda m: Machina.open(environment={"A": object()}), "environment"),
        (lambda m: Machina.open(monitor="yes"), "monitor"),
        (lambda m: Machina.open(monitor=object()), "monitor"),
        (lambda m: m.watch("x"), "since"),
        (lambda m: m.watch(-1), "since"),
        (lambda m: m.watch(2**64), "since"),
        (lambda m: m.watch(1.5), "since"),
        (lambda m: m.tool(service=5), "service"),
        (lambda m: m.native(5), "service"),
        (lambda m: m.tool(service="a", executions_max="x")(lambda: None), "executions_max"),
        (lambda m: m.tool(service="a", executions_max=-1)(lambda: None), "executions_max"),
        (lambda m: m.tool(service="a", executions_max=2**32)(lambda: None), "executions_max"),
        (lambda m: m.tool(service="a", tags=5)(lambda: None), "tags"),
        (lambda m: m.tool(service="a")(5), "function"),
        (lambda m: m.native("a").remove(5), "tool"),
        (lambda m: m.scoped(5), "id"),
    ],
)
@asynchronous
async def test_what_is_wrong_is_named(do: Any, field: str) -> None:
    async with Machina() as m:
        await m.register({"name": "a-service"})
        await with_sleeper(m, "a")
        with pytest.raises(Invalid) as wrong:
            await do(m)
        assert isinstance(wrong.value, ValueError)
        assert field in str(wrong.value) and wrong.value.context["problems"], wrong.value
        assert len(await m.find()) == 2, "nothing was lost, and nothing came of it"


@pytest.mark.parametrize(
    ("url", "config", "error", "says"),
    [
        ("ftp://a", {}, Invalid, "store"),
        ("", {}, Invalid, "store"),
        ("http://127.0.0.1:1", {}, machina.Unreachable, "127.0.0.1"),
        ("https://", {}, Invalid, "url"),
        ("memory:", {"health": {"interval": "0s"}}, Invalid, "health.interval"),
        ("memory:", {"helth": {}}, Invalid, "helth"),
        ("memory:", {"stdio": {"starts_max": 0}}, Invalid, "stdio.starts_max"),
        ("memory:", {"stdio": {"starts": 1}}, Invalid, "starts"),
    ],
)
@asynchronous
async def test_what_cannot_be_opened(url: str, config: dict[str, Any], error: type[MachinaError], says: str) -> None:
    with pytest.raises(error) as refused:
        await Machina.open(url, config=config)
    assert says in str(refused.value)


@asynchronous
async def test_a_handle_that_is_not_open_or_no_longer() -> None:
    m = Machina()
    with pytest.raises(Unavailable, match="not open"):
        await m.get("a")
    assert "not opened" in repr(m)
    async with m:
        assert "open" in repr(m)
    await m.close()
    later = [m.get("a"), m.find(), m.call("a", "b"), m.register({"name": "a"})]
    for do in later:
        with pytest.raises(Unavailable, match="closed") as closed:
            await do
        assert isinstance(closed.value, ConnectionError)
    with pytest.raises(Unavailable, match="closed"):
        m.watch()
    with pytest.raises(Unavailable, match="open already"):
        await m._open()


@asynchronous
async def test_one_elsewhere_has_the_same_methods(served: str) -> None:
    async with Machina(served) as far, Machina(served) as other:
        page = await far.find(name="far-*")
        events = await other.watch(since=page.revision).opened()
        first = asyncio.ensure_future(anext(events))
        service = await far.register({"name": "far-one", "tags": ["far"]})
        assert (await asyncio.wait_for(first, 20)).service == "far-one"
        assert (await far.get("far-one")).id == service.id
        assert (await far.heartbeat("far-one")).lease is None
        assert (await far.overview()).services >= 1
        with pytest.raises(Unavailable):
            await far.call("far-one", "nothing")
        with pytest.raises(Unsupported):
            await far.check("far-one")
        with pytest.raises(Unsupported):
            far.scoped("alice")
        with pytest.raises(Unsupported):
            far.native("far-one").tool(lambda: 1, name="x")
        await far.deregister("far-one")
        await events.aclose()
        late = other.watch(since=page.revision)
        hasty = asyncio.ensure_future(anext(late))
        await asyncio.sleep(0)
        hasty.cancel()
        assert (await asyncio.wait_for(anext(late), 20)).service == "far-one", "it goes on being opened"


def test_errors_are_told_apart_and_travel() -> None:
    assert {error.code for error in MachinaError.__subclasses__()} == {
        "invalid", "unauthenticated", "forbidden", "not_found", "conflict", "unavailable", "unreachable", "lost",
        "timeout", "overloaded", "rejected", "unsupported", "internal",
    }  # fmt: skip
    error = machina.Overloaded("slow down", {"retry_after_ms": 1500})
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.retry_after) == (machina.Overloaded, "slow down", 1.5)
    assert Invalid("x").context == {} and str(Timeout("late")) == "late" and NotFound("x").retry_after is None
