"""A small MCP server on stdio, of the standard library alone: `echo`, `add`, `fail`, `die`, `pid`."""
import json
import os
import sys


def tool(name, description, **properties):
    schema = {"type": "object", "properties": {key: {"type": kind} for key, kind in properties.items()}}
    return {"name": name, "description": description, "inputSchema": schema}


TOOLS = [
    tool("echo", "Says the text again.", text="string"),
    tool("add", "Adds two numbers.", a="number", b="number"),
    tool("fail", "Always says that it failed."),
    tool("die", "Ends the process without an answer."),
    tool("pid", "Tells the number of the process."),
]


def call(name, arguments):
    if name == "die":
        os._exit(3)
    if name == "fail":
        return {"content": [{"type": "text", "text": "it failed, as asked"}], "isError": True}
    answers = {"echo": lambda: arguments["text"], "add": lambda: arguments["a"] + arguments["b"], "pid": os.getpid}
    return {"content": [{"type": "text", "text": str(answers[name]())}]}


def answer(request):
    method, params = request["method"], request.get("params", {})
    if method == "initialize":
        info = {"name": "small", "version": "1"}
        return {"result": {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": info}}
    if method == "ping":
        return {"result": {}}
    if method == "tools/list":
        return {"result": {"tools": TOOLS}}
    if method == "tools/call" and params.get("name") in [tool["name"] for tool in TOOLS]:
        return {"result": call(params["name"], params.get("arguments", {}))}
    return {"error": {"code": -32601, "message": f"no {method} here"}}


if "--broken" in sys.argv:
    print("first line of trouble\nno licence was found", file=sys.stderr)
    sys.exit(1)
for line in sys.stdin:
    request = json.loads(line)
    if "id" in request:
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], **answer(request)}), flush=True)
