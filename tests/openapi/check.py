#!/usr/bin/env python3
"""Checks the OpenAPI document, and a served Machina by it.

    check.py [--examples N]

Validates the document, has schemathesis send what it describes to a real server with a real instance
behind it, and reads the server's metrics with a strict parser. Needs install.py. The last line says how
it went.

Exit code: 0 all is well, 1 something is not, 2 something is missing.
"""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
COMMITTED = REPOSITORY / "docs" / "reference" / "openapi.json"
START = 60
# Streams have no end, WebSockets are none of HTTP's business, and MCP has suites of its own (tests/peers).
NOT_ASKED = ["watch", "watch_health", "watch_config", "mcp", "mcp_group", "mcp_ws", "mcp_group_ws"]
# What takes away what the others are asked about.
NOT_WITH_KNOWN = ["remove_service", "remove_group", "remove_instance"]
# How many operations may meet nothing but refusals: which names are taken by then is up to chance.
NEVER_MAX = 3
# These are asked about a service that nobody else needs.
WRITING = ["replace_service", "change_service", "add_instance", "change_instance", "begin_maintenance",
           "end_maintenance", "begin_instance_maintenance", "end_instance_maintenance", "source_put_config",
           "source_toggle", "source_report_health"]


def say(text):
    print(text, flush=True)


def build():
    """The programs under test, current."""
    packages = ["-p", "machina-http", "--bin", "machina", "-p", "machina-tests", "--bin", "machina-fixture"]
    locked = ["--locked"] if os.environ.get("CI") else []
    lines = subprocess.run(["cargo", "build", "--message-format=json", *locked, *packages], cwd=REPOSITORY,
                           check=True, stdout=subprocess.PIPE).stdout.splitlines()
    built = [json.loads(line) for line in lines]
    return {message["target"]["name"]: message["executable"] for message in built if message.get("executable")}


@contextlib.contextmanager
def served(programs, home):
    """The address of a server with one service behind it."""
    hosts = {"mcpServers": {"fixture": {"command": programs["machina-fixture"], "args": ["stdio"]}}}
    (home / "mcp.json").write_text(json.dumps(hosts), encoding="utf-8")
    log = (home / "machina.log").open("w+", encoding="utf-8")
    server = subprocess.Popen(
        [programs["machina"], "serve", "--listen", "127.0.0.1:0", "--store", f"sqlite:{home}/machina.db",
         "--import", str(home / "mcp.json")],
        cwd=home, env={**os.environ, "HOME": str(home), "NO_COLOR": "1", "MACHINA_EGRESS__ALLOW": '["127.0.0.0/8"]',
                       "MACHINA_SERVER__REMOTE_STORES": "true"},
        stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield wait_for_address(server, home / "machina.log")
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        log.close()


def wait_for_address(server, log):
    end = time.monotonic() + START
    while time.monotonic() < end:
        said = log.read_text(encoding="utf-8")
        found = re.search(r"listening on (http://\S+)", said)
        if found and healthy(found[1]):
            return found[1]
        if server.poll() is not None:
            break
        time.sleep(0.1)
    raise SystemExit(f"openapi: machina did not come up:\n{log.read_text(encoding='utf-8')}")


def ask(url, body=None):
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url, data=body and json.dumps(body).encode(), headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read().decode()


def healthy(url):
    try:
        return json.loads(ask(f"{url}/api/v1/services/fixture"))["status"] == "healthy"
    except OSError:
        return False


def validate(url):
    from openapi_spec_validator import OpenAPIV31SpecValidator, validate as check

    document = json.loads(ask(f"{url}/openapi.json"))
    check(document, cls=OpenAPIV31SpecValidator)
    same = document == json.loads(COMMITTED.read_text(encoding="utf-8"))
    operations = sum(len(item) for item in document["paths"].values())
    say(f"openapi: valid, {operations} operations, {COMMITTED.stat().st_size} bytes committed"
        f"{'' if same else ', and NOT the one that is served'}")
    return same


def exercise(url, examples, report, known):
    """Twice: with names out of the air, and with names that are there."""
    good = True
    for name, more, excluded in [("any", "", NOT_ASKED), ("known", known, NOT_ASKED + NOT_WITH_KNOWN)]:
        config = report / f"schemathesis-{name}.toml"
        config.write_text((HERE / "schemathesis.toml").read_text(encoding="utf-8") + more, encoding="utf-8")
        good &= run_schemathesis(url, examples, report, config, excluded, name)
    return good


def run_schemathesis(url, examples, report, config, excluded, name):
    program = pathlib.Path(sys.executable).parent / "schemathesis"
    options = [part for one in excluded for part in ("--exclude-operation-id", one)]
    begin = time.monotonic()
    code = subprocess.run(
        [program, "--config-file", config, "run", f"{url}/openapi.json", "--no-color", "--warnings", "off",
         "--max-examples", str(examples), "--phases", "examples,coverage,fuzzing", *options],
        cwd=report, env={**os.environ, "PYTHONWARNINGS": "ignore"}).returncode
    say(f"openapi: schemathesis with {name} names ended with {code} after {time.monotonic() - begin:.0f} s")
    return code == 0


def prepare(url):
    """Something of everything, and a configuration that names it."""
    ask(f"{url}/api/v1/groups", {"name": "reading", "members": [{"service": "fixture"}]})
    spare = {"name": "spare", "instances": [{"http": {"url": "http://127.0.0.1:9/mcp"}}]}
    services = [json.loads(ask(f"{url}/api/v1/services/fixture")), json.loads(ask(f"{url}/api/v1/services", spare))]
    fixture, spare = [{"service": one["id"], "instance": one["instances"][0]["id"]} for one in services]
    write = json.dumps(WRITING)
    return f"""
[parameters]
"path.service" = "{fixture["service"]}"
"path.instance" = "{fixture["instance"]}"
"path.group" = "reading"
"path.tool" = "echo"

[[operations]]
include-operation-id = {write}
parameters = {{ "path.service" = "{spare["service"]}", "path.instance" = "{spare["instance"]}" }}
"""


def measure(url):
    """Every line is what the format allows, and what happened is counted."""
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse

    before = {family.name: family for family in parse(ask(f"{url}/metrics"))}
    tool = json.loads(ask(f"{url}/api/v1/services/fixture/tools"))["items"][0]["name"]
    try:
        ask(f"{url}/api/v1/services/fixture/call", {"tool": tool, "arguments": {}})
    except OSError:
        pass  # Counted, too.
    after = {family.name: family for family in parse(ask(f"{url}/metrics"))}

    def calls(families):
        samples = families["machina_call_duration_seconds"].samples
        return sum(sample.value for sample in samples if sample.name.endswith("_count"))

    moved = calls(after) - calls(before)
    series = sum(len(family.samples) for family in after.values())
    say(f"openapi: metrics parse: {len(after)} names, {series} series; a call moved the count by {moved:g}")
    return moved == 1


def tally(url):
    """What the server itself has counted: nothing went wrong in it, and nearly everything was answered."""
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse

    families = {family.name: family for family in parse(ask(f"{url}/metrics"))}
    counts = [(sample.labels, int(sample.value)) for sample in families["http_server_request_duration_seconds"].samples
              if sample.name.endswith("_count")]
    statuses, answered = collections.Counter(), collections.defaultdict(bool)
    for labels, count in counts:
        status = labels["http_response_status_code"]
        statuses[status] += count
        answered[f"{labels['http_request_method']} {labels['http_route']}"] |= status < "400"
    document = json.loads(COMMITTED.read_text(encoding="utf-8"))
    left_out = {*NOT_ASKED, *NOT_WITH_KNOWN}
    # The aliases take what their documents print (machina-http/tests/sources); /v0.1 is one route.
    never = [f"{method.upper()} {path}" for path, methods in document["paths"].items()
             for method, item in methods.items()
             if item["operationId"] not in left_out and not {"Aliases", "MCP registry"} & set(item["tags"])
             and not answered[f"{method.upper()} {path}"]]
    say("openapi: answers by status: " + ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items())))
    say(f"openapi: never answered but with a refusal: {', '.join(never) or 'none'}")
    return statuses["500"] == 0 and len(never) <= NEVER_MAX


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--prefix", type=pathlib.Path, default=REPOSITORY / "target" / "openapi")
    parser.add_argument("--examples", type=int, default=10, help="how many cases an operation gets from each strategy")
    arguments = parser.parse_args()
    prefix = pathlib.Path(os.path.abspath(arguments.prefix))
    python = prefix / "python" / "bin" / "python"
    if not python.exists():
        print("openapi: nothing is installed; run: python3 tests/openapi/install.py", file=sys.stderr)
        return 2
    if pathlib.Path(sys.prefix) != prefix / "python":
        os.execv(python, [str(python), __file__, *sys.argv[1:]])
    begin = time.monotonic()
    programs = build()
    with tempfile.TemporaryDirectory() as home, served(programs, pathlib.Path(home)) as url:
        results = {"document": validate(url), "metrics": measure(url),
                   "schemathesis": exercise(url, arguments.examples, prefix, prepare(url))}
        results["answers"] = tally(url)
        results["alive afterwards"] = json.loads(ask(f"{url}/livez"))["status"] == "alive"
    wrong = [name for name, good in results.items() if not good]
    say(f"openapi: {'all is well' if not wrong else 'FAILED: ' + ', '.join(wrong)}, "
        f"{time.monotonic() - begin:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
