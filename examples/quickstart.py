"""A first look: services are registered and found, a tool is called, mistakes are told apart, changes
are watched. The same program as `quickstart.rs` and `quickstart.mjs`; all three print `quickstart.txt`.

    pip install ./bindings/python
    python examples/quickstart.py
"""

import asyncio

from machina import Invalid, Machina, NotFound


async def main() -> None:
    # "sqlite:machina.db" keeps what is registered; PostgreSQL and https:// go by their address too.
    async with Machina("memory:") as m:
        events = m.watch()

        # A function of this program becomes a tool of the service `pricing`.
        @m.tool(service="pricing")
        async def quote(amount: int) -> dict[str, int]:
            """What an amount costs with tax."""
            return {"price": amount + amount // 5}

        # Any MCP server stands beside it. This one would be started, were it not switched off.
        notes = {"stdio": {"command": "uvx", "args": ["mcp-server-notes"]}}
        await m.register({"name": "notes", "tags": ["demo"], "admin_state": "disabled", "instances": [notes]})

        for service in await m.find():
            print(f"{service.name}: {service.status}")
        print(f"tagged demo: {(await m.find(tags='demo')).items[0].name}")
        print(f"tools: {len(await m.tools())}")

        found = await m.find_tools("what does it cost with tax", limit=1)
        print(f"found: {found[0].name} of {found[0].service}")

        answer = await m.call("pricing", "quote", {"amount": 100})
        print(f"a quote of 100: {answer.structured_content['price']}")
        print(f"it goes to: {(await m.explain('pricing', 'quote')).candidates[0].location}")

        try:
            await m.call("pricing", "quote", {"amount": "much"})
        except Invalid as error:
            print(f"a wrong argument: {error.code}, {error.context['problems'][0]['field']}")
        try:
            await m.call("nobody", "quote")
        except NotFound as error:
            print(f"an unknown service: {error.code}")

        async for event in events:
            if event.type == "definitions_changed":
                print(f"offered: {', '.join(event.added)}")
                break
        await m.deregister("pricing")
        print(f"left: {len(await m.find())}")


asyncio.run(main())
