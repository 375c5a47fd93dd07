"""An MCP host in a page: connects to Machina, finds a tool by words, and calls it.

    pip install mcp
    python examples/mcp_host/host.py http://127.0.0.1:8000/mcp "add two numbers" '{"a": 2, "b": 3}'
    python examples/mcp_host/host.py machina mcp -- "add two numbers" '{"a": 2, "b": 3}'

The first asks a `machina serve` that runs, the second starts a Machina of its own on stdin and stdout. In
either case the host sees five tools, however many there are behind them: `find_tool` names the one that
fits, with its schema, and `call_tool` calls it.
"""

import asyncio
import json
import os
import sys
from typing import Any

from mcp import Client, StdioServerParameters

# How long servers that are just starting have to offer their tools.
STEPS, STEP = 100, 0.2


async def answered(client: Client, tool: str, arguments: dict[str, Any]) -> Any:
    """What a tool of Machina answers."""
    answer = await client.call_tool(tool, arguments)
    if answer.is_error:
        raise SystemExit(f"{tool}: {answer.content[0].text}")
    return answer


async def find(client: Client, text: str) -> dict[str, Any]:
    """The tool that fits best, once there is one."""
    for _ in range(STEPS):
        found = await answered(client, "find_tool", {"query": text})
        tools = (found.structured_content or {}).get("tools") or []
        if tools:
            return dict(tools[0])
        await asyncio.sleep(STEP)
    raise SystemExit(f"no tool fits `{text}`")


async def main(server: str | StdioServerParameters, text: str, arguments: dict[str, Any]) -> None:
    async with Client(server) as client:
        print("machina offers:", ", ".join(sorted(tool.name for tool in (await client.list_tools()).tools)))
        tool = await find(client, text)
        print(f"found: {tool['service']}/{tool['tool']}")
        said = {"service": tool["service"], "tool": tool["tool"], "arguments": arguments}
        answer = await answered(client, "call_tool", said)
        print("answer:", "\n".join(part.text for part in answer.content if part.type == "text"))


def server_and_question(words: list[str]) -> tuple[str | StdioServerParameters, list[str]]:
    """The server that the command line names, and what is asked of it."""
    if words and words[0].startswith("http"):
        return words[0], words[1:]
    if "--" not in words:
        raise SystemExit(__doc__)
    split = words.index("--")
    command, *args = words[:split]
    return StdioServerParameters(command=command, args=args, env=dict(os.environ)), words[split + 1 :]


if __name__ == "__main__":
    server, question = server_and_question(sys.argv[1:])
    if len(question) != 2:
        raise SystemExit(__doc__)
    asyncio.run(main(server, question[0], json.loads(question[1])))
