"""Stores that are shared with other processes: PostgreSQL, and Redis beside any store."""

from __future__ import annotations

import asyncio
import os
import uuid
from typing import Any

import pytest
from conftest import asynchronous

import machina
import machina.sync
from machina import Machina

def url(variable: str) -> str:
    """The address of a server, which `test.sh` starts."""
    found = os.environ.get(variable)
    assert found, f"{variable} is not set: run bindings/python/test.sh, or set it"
    return found


@asynchronous
async def test_two_that_share_a_redis_count_calls_together() -> None:
    access = {"calls_per_minute": 1, "calls_burst": 3}
    shared: dict[str, Any] = {"access": access, "store": {"redis": url("MACHINA_TEST_REDIS_URL")}}
    async with Machina(config=shared) as one, Machina(config=shared) as other, Machina(config={"access": access}) as own:
        for m in (one, other, own):
            native = m.native("words")
            native.tool(shout)
            await native.register()

        async def together() -> None:
            ann = f"ann-{uuid.uuid4().hex}"
            a, b, alone = (m.scoped(ann, "developer") for m in (one, other, own))
            for m in (a, b, a):
                assert (await m.call("words", "shout", {"text": "a"})).text == "A"
            for m in (a, b):
                with pytest.raises(machina.Overloaded):
                    await m.call("words", "shout", {"text": "a"})
            assert (await alone.call("words", "shout", {"text": "a"})).text == "A", "it counts by itself"

        # Who waits for Redis for over 100 ms counts by itself for a while; of five times, once it must hold.
        for last in (False, False, False, False, True):
            try:
                await together()
                break
            except (AssertionError, machina.Overloaded, pytest.fail.Exception):
                if last:
                    raise
                await asyncio.sleep(1)


async def shout(text: str) -> str:
    return text.upper()


@asynchronous
async def test_two_on_one_database_see_each_other() -> None:
    config: dict[str, Any] = {"store": {"redis": url("MACHINA_TEST_REDIS_URL")}}
    name = f"shared-{uuid.uuid4().hex}"
    store = url("MACHINA_TEST_POSTGRES_URL")
    store += f"{'&' if '?' in store else '?'}schema=python_{uuid.uuid4().hex}"
    async with Machina(store, config=config) as one, Machina(store, config=config) as other:
        events = other.watch()
        await one.register({"name": name})
        async for event in events:
            if event.service == name:
                break
        assert (await other.get(name)).name == name


@pytest.mark.parametrize(
    ("store", "field"),
    [
        ({"redis": "http://:hunter2@host"}, "store.redis"),
        ({"redis": 6379}, "store.redis"),
        ({"url": "sqlite:hunter2.db"}, "store.url"),
        ("redis://:hunter2@host", "store"),
    ],
)
def test_what_is_no_redis_is_refused(store: object, field: str) -> None:
    with pytest.raises(machina.Invalid) as wrong, machina.sync.Machina(config={"store": store}):
        pass
    assert wrong.value.context["problems"][0]["field"] == field
    assert "hunter2" not in str(wrong.value) + str(wrong.value.context)


def test_a_redis_that_is_away_holds_nothing_up() -> None:
    with machina.sync.Machina(config={"store": {"redis": "redis://127.0.0.1:9"}}) as m:
        assert m.register({"name": "a"}).name == "a"
