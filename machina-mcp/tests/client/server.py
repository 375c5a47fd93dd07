"""An MCP server on standard streams that behaves as badly as it is told to.

Usage: server.py [era] [quirk ...]
era: legacy (default) | modern | both
quirks: junk, hang_discover, exit_on_discover, silent, deaf, crash, stubborn,
        slow_start, no_ping, family, shut, choke, no_logging, lingers
"""
import json
import os
import signal
import subprocess
import sys
import threading
import time

ERA = sys.argv[1] if len(sys.argv) > 1 else "legacy"
QUIRKS = set(sys.argv[2:])
lock = threading.Lock()
cancelled = []
replies = {}
extra_tools = []
levels = []
subscription = None


def send(message):
    with lock:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


def note(method, params=None):
    send({"jsonrpc": "2.0", "method": method, "params": params or {}})


def text(value, **more):
    return {"content": [{"type": "text", "text": value}], **more}


TOOLS = [
    {"name": "echo", "inputSchema": {"type": "object"}, "x-unknown": {"z": 1, "a": 2}},
    {"name": "broken", "inputSchema": "nonsense"},
    {"name": "sleep", "inputSchema": {"properties": {"seconds": {"type": "number"}}}},
]


def call(request, name, arguments):
    if name == "echo":
        return {**text(json.dumps(arguments)), "zz": 1, "aa": {"y": 1, "b": 2}}
    if name == "fail":
        return text("it failed", isError=True)
    if name == "sleep":
        token = request["params"].get("_meta", {}).get("progressToken")
        steps = arguments.get("steps", 0)
        for step in range(steps):
            time.sleep(arguments["seconds"] / steps)
            note("notifications/progress", {"progressToken": token, "progress": step + 1, "total": steps})
        if not steps:
            time.sleep(arguments["seconds"])
        return text("slept")
    if name == "die":
        sys.stderr.write("about to die with %s\n" % os.environ.get("TOKEN", "no token"))
        sys.stderr.flush()
        os._exit(3)
    if name == "big":
        return text("x" * arguments["bytes"])
    if name == "env":
        return text(json.dumps(dict(os.environ)))
    if name == "cwd":
        return text(os.getcwd())
    if name == "cancelled":
        return text(json.dumps(cancelled))
    if name == "ask":
        for number, method in enumerate(["roots/list", "ping", "sampling/createMessage", "log"]):
            send({"jsonrpc": "2.0", "id": "ask-%d" % number, "method": method, "params": {}})
        deadline = time.time() + 5
        while len(replies) < 4 and time.time() < deadline:
            time.sleep(0.01)
        return text(json.dumps(replies, sort_keys=True))
    if name == "grow":
        extra_tools.append({"name": "grown%d" % len(extra_tools), "inputSchema": {}})
        meta = {"_meta": {"io.modelcontextprotocol/subscriptionId": subscription}} if subscription else {}
        if ERA == "legacy" or subscription is not None:
            note("notifications/tools/list_changed", meta)
        return text("grown")
    if name == "stderr":
        for _ in range(0, arguments["lines"], 1000):
            sys.stderr.write(("y" * 99 + "\n") * 1000)
        sys.stderr.flush()
        return text("written")
    if name == "endless":
        with lock:
            for _ in range(arguments["mebibytes"]):
                sys.stdout.write("x" * (1 << 20))
            sys.stdout.flush()
        return text("written")
    if name == "noise":
        with lock:
            sys.stdout.write("progress: 50 %\n" * arguments["lines"])
            sys.stdout.flush()
        return text("written")
    if name == "meta":
        return text(json.dumps(request["params"].get("_meta", {}), sort_keys=True))
    if name == "log":
        levels.extend(filter(None, [request["params"].get("_meta", {}).get("io.modelcontextprotocol/logLevel")]))
        for line in range(3 if levels else 0):
            note("notifications/message", {"level": "info", "data": [line, os.environ.get("TOKEN")], "x-more": True})
        return text(json.dumps(levels))
    if name == "lacking":
        raise Lacking({"requiredCapabilities": {"sampling": {}}, "token": os.environ.get("TOKEN")})
    raise KeyError(name)


class Lacking(Exception):
    pass


def result_of(request):
    method, params = request["method"], request.get("params") or {}
    modern = "io.modelcontextprotocol/protocolVersion" in params.get("_meta", {})
    if method == "initialize" and ERA != "modern":
        return {"protocolVersion": "2025-11-25", "serverInfo": {"name": "fixture"}, "instructions": "be kind",
                "capabilities": {"tools": {"listChanged": True}, "resources": {}, "prompts": {},
                                 **({} if "no_logging" in QUIRKS else {"logging": {}})}}
    if method == "server/discover" and ERA != "legacy":
        return {"resultType": "complete", "supportedVersions": ["2026-07-28"], "ttlMs": 0, "cacheScope": "private",
                "capabilities": {"tools": {"listChanged": True}},
                "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "fixture"}}}
    if method == "ping" and "no_ping" not in QUIRKS and not modern:
        return {}
    if method == "logging/setLevel":
        levels.append(params["level"])
        return {}
    if method == "tools/list":
        return {"tools": TOOLS + extra_tools}
    if method == "prompts/list":
        return {"prompts": [{"name": "greet", "x-more": True}]}
    if method == "prompts/get":
        return {"messages": [], "for": params.get("name")}
    if method == "resources/templates/list":
        return {"resourceTemplates": []}
    if method == "tools/call":
        return call(request, params["name"], params.get("arguments") or {})
    raise LookupError(method)


def answer(request):
    try:
        send({"jsonrpc": "2.0", "id": request["id"], "result": result_of(request)})
    except Lacking as error:
        send({"jsonrpc": "2.0", "id": request["id"],
              "error": {"code": -32021, "message": "lacking", "data": error.args[0]}})
    except LookupError as error:
        code = -32602 if isinstance(error, KeyError) else -32601
        send({"jsonrpc": "2.0", "id": request["id"], "error": {"code": code, "message": "unknown %s" % error}})


def main():
    global subscription
    if "crash" in QUIRKS:
        sys.exit("configuration missing: SECRET_THING")
    if "stubborn" in QUIRKS:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "silent" in QUIRKS:
        sys.stderr.write("waiting for a licence\n")
        sys.stderr.flush()
    if "slow_start" in QUIRKS:
        time.sleep(1.5)
    if "family" in QUIRKS:
        child = subprocess.Popen(["sleep", "300"], stdin=subprocess.DEVNULL)
        sys.stderr.write("grandchild %d\n" % child.pid)
        sys.stderr.flush()
    if "deaf" in QUIRKS:
        answer(json.loads(sys.stdin.buffer.raw.readline() if hasattr(sys.stdin.buffer.raw, "readline") else "{}"))
        time.sleep(300)
    for line in sys.stdin:
        if "silent" in QUIRKS:
            continue
        if "choke" in QUIRKS:
            if "server/discover" in line:
                sys.exit("choked on the question")
            continue
        if "junk" in QUIRKS:
            sys.stdout.write('starting up...\n\n{"level": "info"}\n[1, 2]\n')
            sys.stdout.flush()
        message = json.loads(line)
        method = message.get("method")
        if method == "server/discover" and "exit_on_discover" in QUIRKS:
            sys.exit(1)
        if method == "server/discover" and "hang_discover" in QUIRKS:
            time.sleep(300)
        if method == "notifications/initialized" and "shut" in QUIRKS:
            os.close(0)
            sys.stderr.write("shut\n")
            sys.stderr.flush()
            time.sleep(300)
        if method is None:
            replies[message["id"]] = message.get("result", message.get("error", {}).get("code"))
        elif method == "notifications/cancelled":
            cancelled.append(message["params"]["requestId"])
        elif method == "subscriptions/listen" and ERA != "legacy":
            subscription = message["id"]
            note("notifications/subscriptions/acknowledged", {"notifications": message["params"]["notifications"]})
        elif "id" in message:
            threading.Thread(target=answer, args=(message,), daemon=True).start()
    if "stubborn" in QUIRKS or "lingers" in QUIRKS:
        time.sleep(300)


main()
