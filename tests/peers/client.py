"""The official Python client of MCP as a host of Machina.

    client.py legacy|auto|2026-07-28 URL
    client.py legacy|auto|2026-07-28 COMMAND ARGUMENT...

Connects in that mode, lists and uses what the conformance fixture offers behind Machina in flat
mode, and prints one line of JSON that says what it saw. Anything unexpected ends it with an error.
"""

import asyncio
import importlib.metadata
import json
import os
import sys

from mcp import Client, MCPError, StdioServerParameters

# How long the tools behind Machina have to be found, in steps of a fifth of a second.
STEPS = 300


async def all_pages(list_page, items_of):
    items, cursor = [], None
    while True:
        page = await list_page(cursor=cursor, cache_mode="bypass")
        items += items_of(page)
        cursor = page.next_cursor
        if cursor is None:
            return items


async def tools_of(client):
    """Every tool, once the one that was asked for is among them."""
    for _ in range(STEPS):
        tools = {tool.name: tool for tool in await all_pages(client.list_tools, lambda page: page.tools)}
        if "test_simple_text" in tools:
            return tools
        await asyncio.sleep(0.2)
    raise AssertionError(f"the fixture's tools are not found: {sorted(tools)}")


async def use(client):
    seen = {"tools": len(await tools_of(client))}
    text = await client.call_tool("test_simple_text")
    assert text.content[0].text == "This is a simple text response for testing.", text
    mixed = await client.call_tool("test_multiple_content_types", {})
    assert [part.type for part in mixed.content] == ["text", "image", "resource"], mixed
    failed = await client.call_tool("test_error_handling", {})
    assert failed.is_error and "intentionally" in failed.content[0].text, failed
    region = await client.call_tool("test_custom_header", {"region": "eu"})
    assert region.content[0].text == "Region: eu", region

    told = []

    async def progress(done, total, _message):
        told.append((done, total))

    await client.call_tool("test_tool_with_progress", {}, progress_callback=progress)
    assert told == [(0, 100), (50, 100), (100, 100)], told
    seen["calls"] = 5

    unknown = "the call of a tool that is not there"
    try:
        answer = await client.call_tool("no_such_tool", {})
        assert answer.is_error, answer
    except MCPError as error:
        unknown = str(error)
    seen["unknown_tool"] = unknown

    prompts = await all_pages(client.list_prompts, lambda page: page.prompts)
    resources = await all_pages(client.list_resources, lambda page: page.resources)
    seen |= {"prompts": len(prompts), "resources": len(resources)}
    prompt = await client.get_prompt("test_prompt_with_arguments", {"arg1": "one", "arg2": "two"})
    assert "arg1='one', arg2='two'" in prompt.messages[0].content.text, prompt
    read = await client.read_resource("test://static-text")
    assert read.contents[0].text == "This is the content of the static text resource.", read
    return seen


async def main(mode, target):
    if target[0].startswith("http"):
        server = target[0]
    else:
        server = StdioServerParameters(command=target[0], args=target[1:], env=dict(os.environ))
    async with Client(server, mode=mode, read_timeout_seconds=30) as client:
        seen = {"client": f"mcp {importlib.metadata.version('mcp')} (Python)", "mode": mode,
                "protocol": client.protocol_version}
        seen |= await use(client)
    print(json.dumps(seen))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
