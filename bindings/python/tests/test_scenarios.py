"""The scenarios of `tests/scenarios`, which every way to a registry answers alike: see the README there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, asynchronous

from machina import Machina, MachinaError

RUNNER = "python"
DIRECTORY = ROOT / "tests/scenarios"
FILES = sorted(DIRECTORY.glob("*.json"))
FOR_ONE_STEP = 30.0
ABSENT = object()


def misfit(value: Any, pattern: Any, place: str = "") -> str | None:
    """Why `value` does not fit `pattern`; `None` when it does."""
    special = [key for key in pattern if key.startswith("$")] if isinstance(pattern, dict) else []
    if special:
        return of_special(value, special[0], pattern[special[0]], place)
    if pattern is None:
        return None if value is None or value is ABSENT else f"{place}: {value!r} is not null"
    if isinstance(pattern, dict):
        if not isinstance(value, dict):
            return f"{place}: {value!r} is no object"
        parts = ((value.get(key, ABSENT), inner, f"{place}/{key}") for key, inner in pattern.items())
        return next((why for part in parts if (why := misfit(*part))), None)
    if isinstance(pattern, list):
        if not isinstance(value, list) or len(value) != len(pattern):
            return f"{place}: {value!r} is no list of {len(pattern)}"
        parts = ((one, inner, f"{place}/{i}") for i, (one, inner) in enumerate(zip(value, pattern)))
        return next((why for part in parts if (why := misfit(*part))), None)
    same = value == pattern and isinstance(value, bool) == isinstance(pattern, bool)
    return None if same else f"{place}: {value!r} is not {pattern!r}"


def of_special(value: Any, word: str, inner: Any, place: str) -> str | None:
    there = value is not None and value is not ABSENT
    fits: dict[str, Callable[[], bool]] = {
        "$any": lambda: there,
        "$absent": lambda: not there,
        "$contains": lambda: isinstance(value, str) and inner in value,
        "$has": lambda: isinstance(value, list) and any(misfit(one, inner) is None for one in value),
        "$lacks": lambda: isinstance(value, list) and all(misfit(one, inner) for one in value),
        "$length": lambda: isinstance(value, list) and len(value) == inner,
        "$not": lambda: misfit(value, inner) is not None,
        "$at_least": lambda: isinstance(value, (int, float)) and value >= inner,
    }
    assert word in fits, f"{word} is no pattern"
    return None if fits[word]() else f"{place}: {value!r} does not fit {word} {inner!r}"


def plain(answer: Any) -> Any:
    if isinstance(answer, list):
        return [plain(one) for one in answer]
    return answer.model_dump(mode="json", by_alias=True, exclude_unset=True) if hasattr(answer, "model_dump") else answer


def pointed(value: Any, pointer: str) -> Any:
    for part in pointer.split("/")[1:]:
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


class Run:
    """One scenario under way."""

    def __init__(self, m: Machina, fixture: str) -> None:
        self.m, self.fixture = m, fixture
        self.saved: dict[str, Any] = {}
        self.streams: dict[str, Any] = {}
        self.background: dict[str, asyncio.Task[Any]] = {}

    def filled(self, value: Any) -> Any:
        if isinstance(value, dict):
            if set(value) == {"$saved"}:
                return self.saved[value["$saved"]]
            return {key: self.filled(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.filled(inner) for inner in value]
        return value.replace("${fixture}", self.fixture) if isinstance(value, str) else value

    async def do(self, method: str, given: dict[str, Any]) -> Any:
        m = self.m
        match method:
            case "register":
                return await m.register(**given)
            case "update":
                return await m.update(given["name"], given["service"], expected=given.get("revision"))
            case "put_group" | "remove_group":
                expected = given.get("revision")
                given = {key: value for key, value in given.items() if key != "revision"}
                return await getattr(m, method)(**given, expected=expected)
            case "deregister" | "get" | "health" | "explain" | "find" | "put" | "set_admin_state" | "pin_tools":
                return await getattr(m, method)(**given)
            case "group" | "groups":
                return await getattr(m, method)(**given)
            case "tools":
                return await m.tools(**given)
            case "find_tools":
                return await m.find_tools(given["text"], limit=given.get("limit", 5))
            case "call":
                given = dict(given)
                timeout_ms = given.pop("timeout_ms", None)
                return await m.call(**given, timeout=None if timeout_ms is None else timeout_ms / 1000)
            case "watch":
                self.streams[given["as"]] = await m.watch(given.get("since")).opened()
                return None
            case "event":
                async for event in self.streams[given["of"]]:
                    if misfit(plain(event), given["fits"]) is None:
                        return event
                raise AssertionError("the stream ended")
            case "native":
                await self.native(given["service"], given["tools"])
                return None
            case "native_remove":
                return m.native(given["service"]).remove(given["tool"])
            case "wait":
                return await self.background[given["of"]]
            case "close":
                return await m.close()
        raise AssertionError(f"`{method}` is no method of a scenario")

    async def native(self, service: str, tools: list[str]) -> None:
        native = self.m.native(service)

        def double(n: int) -> dict[str, int]:
            """Doubles a number."""
            return {"doubled": 2 * n}

        def greet(name: str) -> str:
            """Greets someone."""
            return f"Hello, {name}!"

        async def refuse() -> None:
            """Refuses."""
            raise ValueError("this is refused")

        async def never() -> None:
            """Never answers."""
            await asyncio.Event().wait()

        functions = {function.__name__: function for function in (double, greet, refuse, never)}
        for tool in tools:
            native.tool(functions[tool])
        await native.register()

    async def step(self, step: dict[str, Any]) -> None:
        unknown = set(step) - {"do", "with", "expect", "fails", "until", "save", "background", "only", "note"}
        assert not unknown, f"{unknown} is nothing that a step has"
        given = self.filled(step.get("with", {}))
        if "background" in step:
            self.background[step["background"]] = asyncio.ensure_future(self.do(step["do"], given))
            await asyncio.sleep(0)
            return
        until = asyncio.get_running_loop().time() + FOR_ONE_STEP
        while True:
            why, answer = await self.attempt(step, given)
            if why is None:
                self.saved |= {name: pointed(answer, pointer) for name, pointer in step.get("save", {}).items()}
                return
            late = asyncio.get_running_loop().time() > until
            assert step.get("until") and not late, f"{json.dumps(step, ensure_ascii=False)}\n  {why}"
            await asyncio.sleep(0.05)

    async def attempt(self, step: dict[str, Any], given: dict[str, Any]) -> tuple[str | None, Any]:
        try:
            answer = plain(await asyncio.wait_for(self.do(step["do"], given), FOR_ONE_STEP))
        except MachinaError as error:
            told = {"kind": error.code, "message": error.message, "context": error.context}
            if "fails" not in step:
                return f"it failed: {told}", None
            return misfit(told, self.filled(step["fails"])), None
        if "fails" in step:
            return f"it succeeded: {answer!r}", None
        return (misfit(answer, self.filled(step["expect"])) if "expect" in step else None), answer


def test_there_are_scenarios() -> None:
    assert len(FILES) >= 2


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@asynchronous
async def test_scenario(path: Path, fixture_server: str) -> None:
    scenario = json.loads(path.read_text())
    assert not set(scenario) - {"about", "only", "steps"}, "unknown words"
    if RUNNER not in scenario.get("only", [RUNNER]):
        pytest.skip(f"only for {scenario['only']}")
    async with Machina("memory:") as m:
        run = Run(m, fixture_server)
        for step in scenario["steps"]:
            if RUNNER in step.get("only", [RUNNER]):
                await run.step(step)
            else:
                print(f"only for {step['only']}: {step['do']}")
        for task in run.background.values():
            task.cancel()
