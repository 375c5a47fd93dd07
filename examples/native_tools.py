"""Functions of a program as tools: a calculator, string utilities, JSON and CSV. What each takes is said by
its annotations, what it does by its docstring.

    pip install ./bindings/python
    python examples/native_tools.py
"""

import asyncio
import csv
import io
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from machina import Invalid, Machina, Timeout, ToolContext

machina = Machina("memory:")


@machina.tool(service="calculator", read_only=True)
async def calculate(operation: Literal["add", "subtract", "multiply", "divide"], a: float, b: float) -> dict[str, float]:
    """Calculates with two numbers."""
    if operation == "divide" and b == 0:
        raise ValueError("nothing is divided by zero")
    return {"value": {"add": a + b, "subtract": a - b, "multiply": a * b, "divide": a / (b or 1)}[operation]}


class Count(BaseModel):
    """How much there is of a text."""

    characters: int
    words: int
    lines: int


@machina.tool(service="strings", read_only=True)
async def count(text: Annotated[str, Field(max_length=1_000_000)]) -> Count:
    """Counts the characters, words and lines of a text."""
    return Count(characters=len(text), words=len(text.split()), lines=len(text.splitlines()))


@machina.tool(service="strings", read_only=True)
async def change_case(text: str, case: Literal["upper", "lower", "title"]) -> str:
    """Writes a text in another case."""
    return str(getattr(text, case)())


@machina.tool(service="transform", read_only=True)
def json_to_csv(rows: list[dict[str, Any]], context: ToolContext) -> str:
    """Writes rows as CSV. A function that blocks, such as this one, has a thread of its own."""
    written = io.StringIO()
    table = csv.DictWriter(written, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    table.writeheader()
    for number, row in enumerate(rows, 1):
        table.writerow(row)
        context.progress(number, len(rows))
    return written.getvalue()


@machina.tool(service="transform", read_only=True)
async def csv_to_json(csv_text: str) -> list[dict[str, str]]:
    """Reads CSV as rows."""
    return list(csv.DictReader(io.StringIO(csv_text)))


@machina.tool(service="own")
async def never() -> None:
    """Never answers."""
    await asyncio.Event().wait()


async def show(service: str, tool: str, arguments: dict[str, Any], timeout: float = 5) -> None:
    """Calls a tool, and prints what came of it."""
    try:
        answer = await machina.call(service, tool, arguments, timeout=timeout)
        text = answer.text.strip().replace("\n", " | ")
        print(f"{service}/{tool}: {'failed: ' if answer.is_error else ''}{text}")
    except (Invalid, Timeout) as error:
        print(f"{service}/{tool}: {error.code}")


async def main() -> None:
    async with machina:
        await show("calculator", "calculate", {"operation": "add", "a": 5, "b": 3})
        await show("calculator", "calculate", {"operation": "divide", "a": 5, "b": 0})
        await show("calculator", "calculate", {"operation": "guess", "a": 5, "b": 3})
        await show("strings", "count", {"text": "some words\nand more"})
        await show("strings", "change_case", {"text": "some words", "case": "title"})
        rows = [{"name": "tea", "price": 3}, {"name": "milk, fresh", "price": 2}]
        await show("transform", "json_to_csv", {"rows": rows})
        await show("transform", "csv_to_json", {"csv_text": 'name,price\n"milk, fresh",2\n'})
        await show("own", "never", {}, timeout=0.1)
        found = await machina.find_tools("write rows as csv", limit=1)
        print(f"found: {found[0].service}/{found[0].name}")


asyncio.run(main())
