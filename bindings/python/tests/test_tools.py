"""Functions of the program as tools."""

from __future__ import annotations

import asyncio
import enum
import logging
import threading
import types
from collections.abc import Generator
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal, cast

import pytest
from conftest import PATIENCE, asynchronous, computing, until
from pydantic import BaseModel, Field

import machina
from machina import Machina, Overloaded, Timeout, ToolContext, models
from machina._tools import Tool


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Order(BaseModel):
    item: str
    count: Annotated[int, Field(ge=1)] = 1


@dataclass
class Quote:
    total: float
    due: date


@asynchronous
async def test_the_schema_comes_from_annotations() -> None:
    async with Machina() as m:

        @m.tool(service="shop", title="Quote", tags=["money"], read_only=True, idempotent=True)
        async def quote(
            order: Order,
            colour: Colour = Colour.RED,
            rush: Annotated[Literal["no", "yes"], Field(description="Whether it hurries.")] = "no",
            schema: int | None = None,
        ) -> Quote:
            """What an order costs.

            In euros.
            """
            return Quote(order.count * 2.5 + (schema or 0), date(2026, 1, 2 if colour is Colour.BLUE else 1))

        tool = await m.get_tool("shop", "quote")
        assert tool.description == "What an order costs.\n\nIn euros."
        assert tool.title == "Quote" and tool.annotations == {"readOnlyHint": True, "idempotentHint": True}
        assert tool.input_schema["required"] == ["order"]
        assert tool.input_schema["additionalProperties"] is False
        properties = tool.input_schema["properties"]
        assert list(properties) == ["order", "colour", "rush", "schema"]
        assert properties["rush"] == {
            "default": "no", "description": "Whether it hurries.", "enum": ["no", "yes"], "type": "string"
        }  # fmt: skip
        assert tool.output_schema is not None and set(tool.output_schema["properties"]) == {"total", "due"}
        answer = await m.call("shop", "quote", {"order": {"item": "pen", "count": 2}, "colour": "blue", "schema": 1})
        assert answer.structured_content == {"total": 6.0, "due": "2026-01-02"}
        with pytest.raises(machina.Invalid) as wrong:
            await m.call("shop", "quote", {"order": {"item": "pen", "count": 0}, "colour": "red", "more": 1})
        assert "order.count" in str(wrong.value) or "count" in str(wrong.value)
        assert await quote(Order(item="pen")) == Quote(2.5, date(2026, 1, 1)), "it is still the function it was"


@asynchronous
async def test_what_a_function_gives_is_an_answer() -> None:
    async with Machina() as m:
        native = m.native("giving")
        given: dict[str, Any] = {
            "text": "a", "number": 1, "list": [1, 2], "nothing": None, "object": {"a": {"b": date(2026, 1, 1)}},
            "model": Order(item="x"), "whole": models.ToolResult(content=[{"type": "text", "text": "w"}], isError=True),
        }  # fmt: skip
        for name, value in given.items():
            native.tool(giver(value), name=name)
        await native.register({"name": "giving", "description": "Gives."})
        answers = {name: await m.call("giving", name) for name in given}
        assert {name: answer.text for name, answer in answers.items() if name not in ("object", "model")} == {
            "text": "a", "number": "1", "list": "[1,2]", "nothing": "", "whole": "w"
        }  # fmt: skip
        assert answers["object"].structured_content == {"a": {"b": "2026-01-01"}}
        assert answers["model"].structured_content == {"item": "x", "count": 1}
        assert answers["whole"].is_error and not answers["nothing"].content
        assert (await m.get("giving")).description == "Gives."


def giver(value: Any) -> Any:
    def give() -> Any:
        return value

    return give


@asynchronous
async def test_what_a_function_raises_is_an_answer_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with Machina() as m:

        @m.tool(service="bad")
        async def blow(text: str) -> None:
            raise KeyError(text)

        @m.tool(service="bad")
        def unwritable() -> object:
            return object()

        @m.tool(service="bad")
        async def cancels() -> None:
            raise asyncio.CancelledError

        with caplog.at_level(logging.ERROR, "machina.tools"):
            answer = await m.call("bad", "blow", {"text": "x"})
        assert answer.is_error and answer.text == "KeyError: 'x'"
        assert caplog.records[0].name == "machina.tools" and caplog.records[0].exc_info is not None
        assert (await m.call("bad", "unwritable")).is_error
        assert (await m.call("bad", "cancels")).text == "CancelledError"


def test_a_coroutine_that_is_dropped_with_its_loop_is_not_complained_of(caplog: pytest.LogCaptureFixture) -> None:
    @types.coroutine
    def forever() -> Generator[None, None, None]:
        while True:
            yield

    async def wait() -> None:
        await forever()

    running = Tool(wait, {}).run_async(b"{}", cast("Any", None))
    running.send(None)
    running.close()
    assert not caplog.records


@asynchronous
async def test_tools_come_and_go() -> None:
    async with Machina() as m:
        native = m.native("math")
        native.tool(lambda: 1, name="one", description="One.")
        await native.register()
        assert (await m.call("math", "one")).text == "1"
        native.tool(lambda: 2, name="one", description="Two, now.")
        await native.register()
        assert (await m.call("math", "one")).text == "2"
        native.tool(lambda: 3, name="three")
        assert native.remove("one") and not native.remove("one")
        await native.register()
        with pytest.raises(machina.NotFound):
            await m.call("math", "one")
        assert (await m.call("math", "three")).text == "3"
        await native.withdraw()
        with pytest.raises(machina.Unavailable):
            await m.call("math", "three")
        assert [one.name for one in await m.find()] == ["math"], "the declaration stays"


@asynchronous
async def test_tools_that_were_there_before_it_was_opened() -> None:
    m = Machina()

    @m.tool(service="early")
    async def early() -> str:
        return "bird"

    async with m:
        assert (await m.find_tools("early"))[0].service == "early"
        assert (await m.call("early", "early")).text == "bird"


@asynchronous
async def test_progress_goes_to_the_caller() -> None:
    async with Machina() as m:

        @m.tool(service="slow")
        async def count(to: int, context: ToolContext) -> int:
            for n in range(to):
                context.progress(n + 1, to, f"{n + 1} of {to}")
                await asyncio.sleep(0.01)
            return to

        steps: list[models.Progress] = []
        assert "context" not in (await m.get_tool("slow", "count")).input_schema["properties"]
        await m.call("slow", "count", {"to": 3}, progress=steps.append)
        await until(lambda: len(steps) == 3)
        assert [(step.progress, step.total, step.message) for step in steps] == [
            (1, 3, "1 of 3"), (2, 3, "2 of 3"), (3, 3, "3 of 3")
        ]  # fmt: skip


@asynchronous
async def test_what_cannot_be_a_tool() -> None:
    async with Machina() as m:
        with pytest.raises(TypeError, match="names"):
            m.tool(service="x")(lambda *names: None)
        with pytest.raises(machina.Invalid, match="colour"):
            m.tool(service="x", colour="red")
        with pytest.raises(machina.Invalid, match="characters"):
            m.tool(service="x", name="")(lambda: None)
        with pytest.raises(machina.Invalid):
            m.tool(service="Not A Name")(lambda: None)
        with pytest.raises(machina.Invalid, match="executions_max"):
            m.tool(service="x", executions_max=0)(lambda: None)


@asynchronous
async def test_no_more_run_at_once_than_may() -> None:
    async with Machina() as m:
        running = most = 0

        @m.tool(service="narrow", executions_max=2)
        async def work() -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.02)
            running -= 1

        await asyncio.gather(*(m.call("narrow", "work") for _ in range(10)))
        assert most == 2


@asynchronous
async def test_what_runs_on_keeps_its_place() -> None:
    """A thread cannot be cancelled, and a coroutine may not want to be."""
    async with Machina() as m:
        release, ended = threading.Event(), asyncio.Event()

        @m.tool(service="narrow", executions_max=1)
        def blocks() -> str:
            release.wait(PATIENCE)
            return "done"

        @m.tool(service="narrow", executions_max=1)
        async def insists() -> str:
            try:
                await asyncio.sleep(PATIENCE)
            except asyncio.CancelledError:
                await ended.wait()
            return "done"

        for tool in ("blocks", "insists"):
            with pytest.raises(machina.Timeout):
                await m.call("narrow", tool, timeout=0.2)
            with pytest.raises(machina.Overloaded) as busy:
                await m.call("narrow", tool, timeout=0.2)
            assert busy.value.context["outcome"] == "not_executed"
        release.set()
        ended.set()
        assert (await m.call("narrow", "blocks", timeout=20)).text == "done"
        # The one that was cancelled is over, and another one begins.
        with pytest.raises(machina.Timeout):
            await m.call("narrow", "insists", timeout=0.2)


@asynchronous
async def test_calls_that_wait_for_a_place_and_calls_that_are_given_up() -> None:
    """What ends in the loop makes room for what waits there, while a thread computes and deadlines pass."""
    async with Machina() as m:
        native = m.native("tight")

        @native.tool(executions_max=1)
        async def large(seconds: float) -> str:
            """Takes its time, and says much."""
            await asyncio.sleep(seconds)
            return "x" * 300_000

        await native.register()
        with computing():
            limits = [*(0.02 + n / 20 for n in range(39)), 60]
            asked = [m.call("tight", "large", {"seconds": 0.02}, timeout=limit) for limit in limits]
            answers = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 60)
        answered = [one for one in answers if isinstance(one, models.ToolResult)]
        assert answered and all(one.text.startswith("xxx") for one in answered)
        assert all(isinstance(one, (models.ToolResult, Timeout, Overloaded)) for one in answers), answers
        assert (await m.call("tight", "large", {"seconds": 0}, timeout=30)).text.startswith("x")
