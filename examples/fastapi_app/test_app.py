"""The tests of the application: with a calculator of their own, and as a whole, under uvicorn and gunicorn.

    pytest examples/fastapi_app
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from machina import Machina
from machina.fastapi import get_machina
from machina.testing import machina_with

sys.path.insert(0, str(Path(__file__).parent))
from app import application


@pytest.fixture
def client() -> Iterator[TestClient]:
    """The application with a calculator that is a function of this test."""

    def add(numbers: list[float]) -> float:
        if 13 in numbers:
            raise ValueError("an unlucky number")
        return sum(numbers)

    async def fake() -> AsyncIterator[Machina]:
        async with machina_with({"calculator": {"add": add}}) as m:
            yield m

    app = application("memory:", "http://127.0.0.1:9")
    app.dependency_overrides[get_machina] = fake
    with TestClient(app) as client:
        yield client


def test_a_total_is_what_the_calculator_says(client: TestClient) -> None:
    number = client.post("/orders", json={"item": "pen", "prices": [1.5, 2]}).json()["number"]
    assert client.get(f"/orders/{number}/total").json() == {"total": 3.5}
    assert client.get("/orders/7/total").status_code == 404
    assert client.get("/tools", params={"text": "add"}).json() == ["calculator/add"]


def test_a_calculator_that_fails(client: TestClient) -> None:
    number = client.post("/orders", json={"item": "pen", "prices": [13]}).json()["number"]
    failed = client.get(f"/orders/{number}/total")
    assert failed.status_code == 502 and "unlucky" in failed.text


def test_a_calculator_that_is_not_there() -> None:
    app = application("memory:", "http://127.0.0.1:9")

    async def empty() -> AsyncIterator[Machina]:
        async with machina_with() as m:
            yield m

    app.dependency_overrides[get_machina] = empty
    with TestClient(app) as client:
        client.post("/orders", json={"item": "pen", "prices": [1]})
        missing = client.get("/orders/1/total")
        assert missing.status_code == 404 and missing.json()["code"] == "not_found"


def eventually(what: Any, seconds: float = 40) -> Any:
    until = time.monotonic() + seconds
    while True:
        try:
            found = what()
            if found:
                return found
        except (httpx.ConnectError, httpx.TimeoutException):
            pass
        assert time.monotonic() < until, "it did not come to it"
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_the_whole_under_uvicorn(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(Path(__file__).parent), "app:app"]
    with (tmp_path / "log").open("w+") as log:
        server = subprocess.Popen(
            [*command, "--port", str(port), "--timeout-graceful-shutdown", "2"],
            env={**os.environ, "PUBLIC_URL": url, "MACHINA_URL": f"sqlite:{tmp_path}/machina.db"},
            stdout=log,
            stderr=log,
        )
        try:
            eventually(lambda: httpx.post(f"{url}/orders", json={"item": "pen", "prices": [2, 3]}).is_success)
            calculator = f"{url}/machina/services/calculator/health"
            eventually(lambda: httpx.get(calculator).json().get("status") == "healthy")
            assert httpx.get(f"{url}/orders/1/total", timeout=30).json() == {"total": 5.0}
            health = f"{url}/machina/services/orders/health"
            own = eventually(lambda: (a := httpx.get(health)).is_success and a.json()["status"] == "healthy" and a)
            assert own.json()["health"]["lease_expires_at"], "it registered itself, with a lease"
            call = {"tool": "total_of_order", "arguments": {"number": 1}}
            answer = httpx.post(f"{url}/machina/services/orders/call", json=call, timeout=30)
            assert answer.json()["content"][0]["text"] == "5.0", "others call it through the same Machina"
        finally:
            server.terminate()
            code = server.wait(30)
        log.seek(0)
        said = log.read()
        # Streams that Machina held to its own server are cut, and uvicorn says so.
        assert code in (0, -15) and "Application shutdown complete" in said, said
    import machina.sync

    with machina.sync.Machina(f"sqlite:{tmp_path}/machina.db", monitor=False) as m:
        assert [service.name for service in m.find()] == ["calculator"], "it went when it ended"


WITH_WORKER = """
import os
from app import app as inner

async def app(scope, receive, send):
    async def say_who(message):
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"x-worker", str(os.getpid()).encode())]
        await send(message)

    await inner(scope, receive, say_who)
"""


def test_several_workers_under_gunicorn(tmp_path: Path) -> None:
    (tmp_path / "workers.py").write_text(WITH_WORKER)
    where = f"127.0.0.1:{free_port()}"
    url = f"http://{where}"
    command = [sys.executable, "-m", "gunicorn", "workers:app", "--preload", "--workers", "2", "--bind", where]
    command += ["--worker-class", "uvicorn_worker.UvicornWorker", "--graceful-timeout", "5"]

    def worker_that_answers(_: int) -> str | None:
        # One connection is one worker, and each has its own orders.
        with httpx.Client(base_url=url, timeout=30) as client:
            number = client.post("/orders", json={"item": "pen", "prices": [2, 3]}).json()["number"]
            answer = client.get(f"/orders/{number}/total")
            if answer.status_code in (503, 504):
                return None  # its calculator is still starting
            assert answer.json() == {"total": 5.0}, answer.text
            return answer.headers["x-worker"]

    with (tmp_path / "log").open("w+") as log, ThreadPoolExecutor(4) as pool:
        server = subprocess.Popen(
            [*command, "--pythonpath", f"{tmp_path},{Path(__file__).parent}"],
            env={**os.environ, "PUBLIC_URL": url, "MACHINA_URL": "memory:"},
            stdout=log,
            stderr=log,
        )
        seen: set[str | None] = set()
        try:
            eventually(lambda: seen.update(pool.map(worker_that_answers, range(4))) or len(seen - {None}) == 2)
        finally:
            server.terminate()
            code = server.wait(30)
        log.seek(0)
        said = log.read()
        assert code in (0, -15) and "panicked" not in said, said
