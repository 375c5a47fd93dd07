"""A small service that embeds Machina: it keeps orders, and has their totals worked out by a calculator.

It finds the calculator in its Machina and calls it there. It is an MCP server too, at `/mcp`: it registers
itself as the service `orders`, says every few seconds that it is alive, and goes when it ends, so that whoever
uses the same Machina can call its tool.

    pip install './bindings/python[fastapi]' mcp uvicorn
    uvicorn --app-dir examples/fastapi_app app:app
    curl -s localhost:8000/orders -H 'content-type: application/json' -d '{"item": "pen", "prices": [1.5, 2]}'
    curl -s localhost:8000/orders/1/total

| variable | is | by default |
|---|---|---|
| `MACHINA_URL` | the Machina: a store, or one that runs elsewhere | `memory:` |
| `PUBLIC_URL` | where others reach this service | `http://127.0.0.1:8000` |
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import FastAPI, HTTPException
from mcp.server import MCPServer
from pydantic import BaseModel

from machina import Conflict, Machina, MachinaError, NotFound
from machina.fastapi import MachinaLifespan, Registry, problems, router

NAME = "orders"
CALCULATOR = {
    "name": "calculator",
    "instances": [{"stdio": {"command": sys.executable, "args": [str(Path(__file__).with_name("calculator.py"))]}}],
}


class Order(BaseModel):
    """What someone ordered."""

    item: str
    prices: list[float]


class Numbered(Order):
    """An order with its number."""

    number: int


async def total_of(order: Order, machina: Machina) -> float:
    """What an order costs, as the calculator says."""
    answer = await machina.call("calculator", "add", {"numbers": order.prices}, timeout=10)
    if answer.is_error:
        raise HTTPException(502, answer.text)
    return float(answer.text)


async def alive(machina: Machina, public_url: str) -> None:
    """Registers this service, and says that it is alive for as long as it is."""
    spec = {
        "name": NAME,
        "build_type": "fastapi",
        "description": "Orders, and what they cost.",
        "instances": [{"http": {"url": f"{public_url}/mcp"}, "lease_ttl": "15s"}],
    }
    pause = 0.0
    while True:
        await asyncio.sleep(pause)
        try:
            beat = await machina.heartbeat(NAME)
            pause = beat.lease.renew_after_ms / 1000 if beat.lease else 5.0
        except NotFound:
            # Not registered yet, or forgotten while nobody heard of it.
            await machina.put(spec)
            pause = 0.0
        except MachinaError:
            pause = 2.0


def application(machina_url: str, public_url: str) -> FastAPI:
    """The application, on the Machina at `machina_url`."""
    orders: dict[int, Numbered] = {}
    server = MCPServer(NAME)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        machina: Machina = app.state.machina
        with contextlib.suppress(Conflict):
            await machina.register(CALCULATOR)
        beating = asyncio.create_task(alive(machina, public_url))
        async with server.session_manager.run():
            yield
        beating.cancel()
        with contextlib.suppress(asyncio.CancelledError, MachinaError):
            await beating
        with contextlib.suppress(MachinaError):
            await machina.deregister(NAME)

    app = FastAPI(title="Orders", lifespan=MachinaLifespan(machina_url, lifespan))
    problems(app)

    @app.post("/orders", status_code=201)
    async def order(order: Order) -> Numbered:
        orders[len(orders) + 1] = Numbered(number=len(orders) + 1, **order.model_dump())
        return orders[len(orders)]

    @app.get("/orders/{number}/total")
    async def total(number: int, machina: Registry) -> dict[str, float]:
        if number not in orders:
            raise HTTPException(404, f"there is no order {number}")
        return {"total": await total_of(orders[number], machina)}

    @app.get("/tools")
    async def tools(machina: Registry, text: str) -> list[str]:
        return [f"{tool.service}/{tool.name}" for tool in await machina.find_tools(text)]

    @server.tool()
    async def total_of_order(number: int) -> float:
        """What an order costs."""
        if number not in orders:
            raise ValueError(f"there is no order {number}")
        return await total_of(orders[number], app.state.machina)

    # Whoever reaches this service may use its Machina, short of starting commands: guard it where that is too much.
    app.include_router(router(), prefix="/machina")
    app.mount("/", server.streamable_http_app())
    return app


app = application(os.environ.get("MACHINA_URL", "memory:"), os.environ.get("PUBLIC_URL", "http://127.0.0.1:8000"))
