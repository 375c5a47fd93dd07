"""A Machina in a FastAPI application: its lifespan, its dependency, its router."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import program
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.testclient import TestClient

from machina import Invalid, Machina
from machina.fastapi import MachinaLifespan, Registry, get_machina, problems, router
from machina.testing import machina_with


def test_the_lifespan_opens_composes_and_closes() -> None:
    told: list[str] = []
    kept: list[Machina] = []

    @asynccontextmanager
    async def inner(app: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        kept.append(app.state.machina)
        await app.state.machina.register({"name": "a"})
        told.append("began")
        yield {"mine": 7}
        told.append("ended")

    app = FastAPI(lifespan=MachinaLifespan("memory:", inner, monitor=False))

    @app.get("/names")
    async def names(m: Registry, request: Request) -> dict[str, Any]:
        return {"names": [one.name for one in await m.find()], "mine": request.state.mine}

    with TestClient(app) as client:
        assert client.get("/names").json() == {"names": ["a"], "mine": 7}
    assert told == ["began", "ended"] and "closed" in repr(kept[0])


def test_a_machina_with_tools_is_opened_by_the_lifespan() -> None:
    machina = Machina("memory:")

    @machina.tool(service="pricing")
    async def quote(amount: float) -> float:
        return amount * 2

    app = FastAPI(lifespan=MachinaLifespan(machina))

    @app.get("/quote")
    async def get_quote(m: Registry, amount: float) -> str:
        return (await m.call("pricing", "quote", {"amount": amount})).text

    with TestClient(app) as client:
        assert client.get("/quote", params={"amount": 2}).json() == "4.0"


def test_another_machina_can_be_put_in_its_place() -> None:
    app = FastAPI(lifespan=MachinaLifespan("memory:"))

    @app.get("/weather")
    async def weather(m: Registry, city: str) -> str:
        return (await m.call("weather", "forecast", {"city": city})).text

    async def fake() -> AsyncIterator[Machina]:
        async with machina_with({"weather": {"forecast": lambda city: f"Rain in {city}."}}) as m:
            yield m

    app.dependency_overrides[get_machina] = fake
    with TestClient(app) as client:
        assert client.get("/weather", params={"city": "Oslo"}).json() == "Rain in Oslo."


def test_an_application_without_one_is_told_so() -> None:
    app = FastAPI()

    @app.get("/")
    async def root(m: Registry) -> None: ...

    with TestClient(app) as client, pytest.raises(RuntimeError, match="MachinaLifespan"):
        client.get("/")


def served_app() -> FastAPI:
    machina = Machina("memory:", monitor=False)

    @machina.tool(service="math")
    def add(a: int, b: int) -> int:
        """Adds two numbers."""
        return a + b

    app = FastAPI(lifespan=MachinaLifespan(machina))
    problems(app)
    app.include_router(router(), prefix="/machina")
    return app


def test_the_router_has_the_rest_surface() -> None:
    with TestClient(served_app()) as client:

        def ask(method: str, path: str, **kwargs: Any) -> Any:
            answered = client.request(method, f"/machina{path}", **kwargs)
            assert answered.is_success, answered.text
            return answered.json()

        service = ask("POST", "/services", json={"name": "io.github.someone/notes", "tags": ["x"]})
        assert service["name"] == "io.github.someone/notes"
        assert ask("GET", "/services/io.github.someone/notes")["id"] == service["id"]
        assert [one["name"] for one in ask("GET", "/services", params={"tags": "x"})["items"]] == [service["name"]]
        assert ask("GET", "/services/io.github.someone/notes/health")["status"] == "unknown"
        assert ask("GET", "/services/math/explain", params={"tool": "add"})["candidates"]
        changed = ask("PUT", "/services/io.github.someone/notes", json={"name": "notes"})
        assert changed["name"] == "notes"
        assert ask("POST", "/services/notes/heartbeat")["lease"] is None
        assert ask("DELETE", "/services/notes")["revision"] > changed["revision"]
        assert ask("GET", "/tools", params={"service": "math"})["items"][0]["inputSchema"]["required"] == ["a", "b"]
        assert ask("POST", "/tools:find", json={"text": "numbers"})["items"][0]["name"] == "add"
        answer = ask("POST", "/services/math/call", json={"tool": "add", "arguments": {"a": 1, "b": 2}})
        assert answer["content"] == [{"type": "text", "text": "3"}] and "structuredContent" not in answer
        assert ask("GET", "/status")["services"] == 1


def test_errors_are_problems_with_the_status_of_their_kind() -> None:
    with TestClient(served_app()) as client:
        missing = client.get("/machina/services/nobody")
        assert missing.status_code == 404 and missing.headers["content-type"] == "application/problem+json"
        assert missing.json()["code"] == "not_found" and missing.json()["service"] == "nobody"
        wrong = client.post("/machina/services", json={"name": "a", "colour": 1})
        assert wrong.status_code == 422 and "colour" in wrong.json()["detail"]
        command = {"name": "a", "instances": [{"stdio": {"command": "sh"}}]}
        refused = client.post("/machina/services", json=command)
        assert refused.status_code == 403, "who asks over the network starts no commands"


@pytest.mark.parametrize("since", ["-1", "x", str(2**64), "1.5"])
def test_events_since_what_is_no_revision_are_refused_before_they_begin(since: str) -> None:
    with TestClient(served_app()) as client:
        refused = client.get("/machina/events", params={"since": since})
        assert refused.status_code == 422 and "since" in refused.text


def test_events_of_a_machina_that_is_closed_are_refused_before_they_begin() -> None:
    app = served_app()

    async def closed() -> Machina:
        m = await Machina.open("memory:")
        await m.close()
        return m

    app.dependency_overrides[get_machina] = closed
    with TestClient(app) as client:
        refused = client.get("/machina/events")
        assert refused.status_code == 503 and refused.json()["code"] == "unavailable"


@pytest.mark.parametrize("in_loop", [True, False])
def test_the_router_of_someone_else_does_what_they_may(in_loop: bool) -> None:
    app = served_app()

    def developer() -> Machina:
        """In a thread, as it is no coroutine."""
        return app.state.machina.scoped("ann", "developer", tenant="acme")

    async def developer_in_loop() -> Machina:
        return developer()

    app.dependency_overrides[get_machina] = developer_in_loop if in_loop else developer
    with TestClient(app) as client:
        assert client.portal is not None
        client.portal.call(app.state.machina.register, {"name": "notes", "tenant": "acme"})
        assert client.get("/machina/status").status_code == 200
        assert [one["name"] for one in client.get("/machina/services").json()["items"]] == ["notes"]
        assert client.get("/machina/services/math").status_code == 404
        assert client.post("/machina/services/notes/call", json={"tool": "add"}).status_code == 503, "no instance"
        assert client.post("/machina/services", json={"name": "a", "tenant": "acme"}).status_code == 403


def test_nobody_outside_has_commands_started_not_even_as_an_administrator() -> None:
    app = served_app()
    app.dependency_overrides[get_machina] = lambda: app.state.machina.scoped("root", "admin")
    with TestClient(app) as client:
        assert client.post("/machina/services", json={"name": "a"}).status_code == 201
        command = {"name": "b", "instances": [{"stdio": {"command": "sh"}}]}
        assert client.post("/machina/services", json=command).status_code == 403


def test_what_is_no_machina_has_no_lifespan() -> None:
    with pytest.raises(Invalid, match="url"), TestClient(FastAPI(lifespan=MachinaLifespan(5))):
        pass


def test_a_router_may_be_guarded() -> None:
    def guard(request: Request) -> None:
        if request.headers.get("authorization") != "Bearer let-me-in":
            raise HTTPException(401)

    app = FastAPI(lifespan=MachinaLifespan("memory:"))
    app.include_router(router(dependencies=[Depends(guard)]), prefix="/machina")
    with TestClient(app) as client:
        assert client.get("/machina/status").status_code == 401
        assert client.get("/machina/status", headers={"authorization": "Bearer let-me-in"}).status_code == 200


APPLICATION = """
from fastapi import FastAPI
from machina.fastapi import MachinaLifespan, Registry, problems, router
from machina import Machina, Unavailable
import machina.sync
import os

# With gunicorn's --preload it is the parent of the workers that opens it.
early = machina.sync.Machina.open("memory:")
machina = Machina("memory:")

@machina.tool(service="pid")
async def pid() -> int:
    return os.getpid()

app = FastAPI(lifespan=MachinaLifespan(machina))
problems(app)
app.include_router(router(), prefix="/machina")

@app.get("/pid")
async def ask(m: Registry) -> dict[str, int | str]:
    try:
        said = str(len(early.find()))
    except Unavailable as error:
        said = str(error)
    return {"called": int((await m.call("pid", "pid")).text), "own": os.getpid(), "early": said}
"""

STALE = "the handle was opened before fork: open one in this process"


@pytest.mark.parametrize(
    ("module", "arguments", "workers", "early"),
    [
        (
            "uvicorn",
            ["application:app", "--log-level", "warning", "--timeout-graceful-shutdown", "2", "--port"],
            1,
            "0",
        ),
        (
            "gunicorn",
            ["application:app", "--preload", "--workers", "3", "--worker-class", "uvicorn_worker.UvicornWorker",
             "--log-level", "warning", "--graceful-timeout", "10", "--bind"],
            3,
            STALE,
        ),
    ],
)  # fmt: skip
def test_it_runs_under(module: str, arguments: list[str], workers: int, early: str, tmp_path: Path) -> None:
    (tmp_path / "application.py").write_text(APPLICATION)
    port = free_port()
    where = f"127.0.0.1:{port}" if module == "gunicorn" else str(port)
    with (tmp_path / "log").open("w+") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", module, *arguments, where], cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            answers = ask_until_all_answer(f"http://127.0.0.1:{port}/pid", server, workers)
            assert all(one["called"] == one["own"] for one in answers), "each worker has its own Machina"
            assert {one["early"] for one in answers} == {early}
            with httpx.stream("GET", f"http://127.0.0.1:{port}/machina/events", timeout=10) as events:
                assert next(events.iter_lines()) == ": watching"
        finally:
            server.terminate()
            try:
                code = server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
                log.seek(0)
                pytest.fail(f"{module} did not end:\n{log.read()}")
        log.seek(0)
        said = log.read()
        assert code in (0, -15), said
        assert "Traceback" not in said and "panicked" not in said, said


def free_port() -> int:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def ask_until_all_answer(url: str, server: subprocess.Popen[Any], workers: int) -> list[dict[str, Any]]:
    """The answers to at least 20 questions, of as many processes as there are workers."""
    answers: list[dict[str, Any]] = []
    until = time.monotonic() + 60
    with ThreadPoolExecutor(8) as pool:
        while len(answers) < 20 or len({one["own"] for one in answers}) < workers:
            assert server.poll() is None, "it ended"
            assert time.monotonic() < until, f"not all answer: {answers}"
            try:
                asked = list(pool.map(lambda _: httpx.get(url, timeout=10).raise_for_status(), range(8)))
                answers += [answered.json() for answered in asked]
            except httpx.ConnectError:
                time.sleep(0.1)
    assert len({one["own"] for one in answers}) == workers
    return answers


def test_fastapi_is_loaded_only_by_who_wants_it() -> None:
    program(
        """
    import sys, machina, machina.sync
    assert not {"fastapi", "starlette", "pydantic"} & set(sys.modules), "loaded too early"
    machina.models
    assert "pydantic" in sys.modules and "fastapi" not in sys.modules
    """
    )
