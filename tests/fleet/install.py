#!/usr/bin/env python3
"""Installs the fleet (real MCP servers, see fleet.json) once, so that tests start them directly.

    install.py [--ci | --all | NAME...] [--prefix DIR] [--work DIR] [--jobs N] [--fleet FILE]

Each server gets a directory of its own under PREFIX (an npm project or a Python environment), so
that their dependencies cannot conflict. A stamp written last marks it complete: a second run does
nothing, a half-finished one is done again. Afterwards PREFIX/fleet.resolved.json and
PREFIX/mcp.json say how to start every installed server without npx or uvx in between.

Exit code: 0 all wanted servers are there, 1 some failed (the others are usable), 2 wrong usage.
"""

import argparse
import concurrent.futures
import contextlib
import fcntl
import json
import os
import pathlib
import re
import shutil
import sys
import time

from tools import PAUSES, InstallError, Log, Node, Uv, npm_project, output_of, patiently

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent

# Dependencies are resolved as the registries stood on this day: the servers' own versions are
# pinned in fleet.json, what they depend on is not, and a new release of it must not break a run.
RESOLVED_AS_OF = "2026-11-20"
STAMP = ".complete.json"
# The kubernetes server does not start without a cluster to name; nobody listens at this one.
KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters: [{name: none, cluster: {server: "http://127.0.0.1:9"}}]
contexts: [{name: none, context: {cluster: none, user: none}}]
users: [{name: none, user: {}}]
current-context: none
"""


# --- one server ----------------------------------------------------------------------------------

def parse_launch(server):
    """The launch line of fleet.json taken apart: what to install, what to run, with which args."""
    launcher, rest = server["launch"][0], list(server["launch"][1:])
    if launcher == "npx":
        rest = rest[1:] if rest[0] == "-y" else rest
        return {"specs": [rest[0]], "executable": None, "args": rest[1:]}
    if launcher == "uvx":
        specs = []
        while rest[0] in ("--from", "--with"):
            specs.insert(0 if rest[0] == "--from" else len(specs), rest[1])
            rest = rest[2:]
        return {"specs": specs or [rest[0]], "executable": rest[0], "args": rest[1:]}
    raise InstallError(f"launch starts with {launcher!r}; npx or uvx is understood")


class Fleet:
    """Where everything is, and the tools, each looked for once."""

    def __init__(self, servers, prefix, work):
        self.servers, self.prefix, self.work = servers, prefix, work
        # Node also says how an installed server starts; uv is only for installing.
        self.tools = {"npm": self.tool(Node)}

    def tool(self, kind):
        try:
            return kind(self.prefix)
        except InstallError as error:
            return error

    def home(self, server):
        return self.prefix / server["ecosystem"] / server["name"]

    def stamp_wanted(self, server):
        return {"at": str(self.home(server)), "specs": parse_launch(server)["specs"],
                "python": server.get("python"), "as_of": RESOLVED_AS_OF}

    def installed(self, server):
        """Complete, for these versions, and not broken since (a removed Python breaks it)."""
        try:
            self.command(server)
            stamp = json.loads((self.home(server) / STAMP).read_text())
            return stamp == self.stamp_wanted(server)
        except (OSError, ValueError, InstallError):
            return False

    def prepare_tools(self, missing):
        if any(server["ecosystem"] == "pypi" for server in missing):
            self.tools["pypi"] = self.tool(Uv)

    def install(self, server):
        """Installs one server; returns a remark for its line."""
        tool = self.tools[server["ecosystem"]]
        if isinstance(tool, InstallError):
            raise tool
        log = Log(self.prefix / "log" / f"{server['name']}.log")
        one_way = self.install_npm if server["ecosystem"] == "npm" else self.install_pypi
        remark = ""
        try:
            one_way(server, tool, log, dated=True)
        except InstallError:
            # A failed download; or a registry that does not know when its packages appeared.
            time.sleep(PAUSES[0])
            patiently(lambda: one_way(server, tool, log, dated=False), PAUSES[1:])
            remark = "dependencies as of today, at the second try"
        self.command(server)
        stamp = self.home(server) / STAMP
        stamp.write_text(json.dumps(self.stamp_wanted(server)))
        return remark or self.node_remark(server)

    def install_npm(self, server, node, log, dated):
        home = self.home(server)
        shutil.rmtree(home, ignore_errors=True)
        npm_project(home, f"machina-fleet-{server['name']}")
        argv = node.install_argv(parse_launch(server)["specs"][0])
        log.run(argv + (["--before", RESOLVED_AS_OF] if dated else []), cwd=home)

    def install_pypi(self, server, uv, log, dated):
        home = self.home(server)
        shutil.rmtree(home, ignore_errors=True)
        log.run([uv.path, "venv", "--no-project", "--python",
                 uv.python(server.get("python")), home])
        argv = [uv.path, "pip", "install", "--python", home / "bin" / "python",
                "--compile-bytecode", "--no-progress", *parse_launch(server)["specs"]]
        log.run(argv + (["--exclude-newer", RESOLVED_AS_OF] if dated else []))

    def node_remark(self, server):
        if server["ecosystem"] != "npm":
            return ""
        wanted = self.manifest(server).get("engines", {}).get("node", "")
        majors = [int(m) for m in re.findall(r"(?<![\d.])(\d+)(?:\.\d+)*", wanted)]
        have = self.tools["npm"].major
        return f"says it wants node {wanted}, has {have}" if majors and min(majors) > have else ""

    def manifest(self, server):
        path = self.home(server) / "node_modules" / server["package"] / "package.json"
        return json.loads(path.read_text(encoding="utf-8"))

    def command(self, server):
        """The argv that starts an installed server, before its own arguments."""
        if server["ecosystem"] == "npm":
            return self.npm_command(server)
        name = parse_launch(server)["executable"]
        path = self.home(server) / "bin" / name
        python = self.home(server) / "bin" / "python"
        if not os.access(path, os.X_OK) or not python.exists():
            raise InstallError(f"{server['package']} has no executable {name}")
        return [str(path)]

    def npm_command(self, server):
        """As npx chooses: the only bin, or the one named like the package without its scope."""
        unscoped = server["package"].split("/")[-1]
        bins = self.manifest(server).get("bin", {})
        if isinstance(bins, str):
            bins = {unscoped: bins}
        name = next(iter(bins)) if len(set(bins.values())) == 1 else unscoped
        path = self.home(server) / "node_modules" / ".bin" / name
        if name not in bins or not path.exists():
            raise InstallError(f"{server['package']} has no executable {name}")
        with path.open("rb") as file:
            first = file.readline(200).decode(errors="replace")
        interpreter = re.match(r"#!\s*\S*/(?:env\s+(?:-S\s+)?)?node(\s.*)?$", first.strip())
        if not interpreter:
            return [str(path)]
        if isinstance(self.tools["npm"], InstallError):
            raise self.tools["npm"]
        return [self.tools["npm"].node, *(interpreter.group(1) or "").split(), str(path)]

    # --- what the tests read ---------------------------------------------------------------------

    def substitute(self, value):
        if isinstance(value, str):
            return value.replace("{work}", str(self.work))
        if isinstance(value, list):
            return [self.substitute(v) for v in value]
        if isinstance(value, dict):
            return {k: self.substitute(v) for k, v in value.items()}
        return value

    def resolve(self, server):
        command = self.command(server)
        # A home of its own: no server reads or writes the one of whoever runs the tests
        # (credentials, a cluster configuration, notes).
        env = {"HOME": f"{{work}}/home/{server['name']}", **server["env"]}
        args = command[1:] + parse_launch(server)["args"]
        kept = ("build_type", "category", "tags", "expected_tools", "protocol",
                "speaks_2026_07_28", "call", "exits_on_stdin_close", "stdout_garbage_lines", "ci")
        return self.substitute({"name": server["name"], "command": command[0], "args": args,
                                "env": env, **{key: server[key] for key in kept}})

    def write_resolved(self):
        resolved = [self.resolve(server) for server in self.servers if self.installed(server)]
        write_json(self.prefix / "fleet.resolved.json", resolved)
        write_json(self.prefix / "mcp.json", {"mcpServers": {
            server["name"]: {key: server[key] for key in ("command", "args", "env")}
            for server in resolved}})
        return len(resolved)

    def make_work(self):
        """Every directory that a launch line, an environment or a call names under {work}."""
        for server in self.servers:
            (self.work / "home" / server["name"]).mkdir(parents=True, exist_ok=True)
            text = json.dumps([server["launch"], server["env"], server["call"]])
            for found in re.findall(r"\{work\}/([^\"]+)", text):
                path = self.work / found
                (path.parent if path.suffix else path).mkdir(parents=True, exist_ok=True)
        for file, content in (("filesystem/hello.txt", "Hello from the fleet.\n"),
                              ("kubernetes/config.yaml", KUBECONFIG)):
            path = self.work / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        self.make_repository(self.work / "git" / "repo")

    def make_repository(self, repository):
        if output_of(["git", "-C", str(repository), "rev-parse", "--verify", "HEAD^{commit}"]) \
                and (repository / ".git").is_dir():
            return
        shutil.rmtree(repository, ignore_errors=True)
        repository.mkdir(parents=True)
        (repository / "README.md").write_text("# A repository for the git server\n")
        log = Log(self.prefix / "log" / "git-repository.log")
        git = ["git", "-C", repository, "-c", "user.name=Fleet", "-c", "user.email=fleet@localhost",
               "-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null",
               "-c", "init.defaultBranch=main"]
        for step in ("init --quiet", "add README.md", "commit --quiet -m First"):
            log.run(git + step.split())


def write_json(path, value):
    """In one step: a reader sees the old file or the new one, never half of it."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)


# --- the command ---------------------------------------------------------------------------------

def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--ci", action="store_true", help="those that CI runs (the default)")
    which.add_argument("--all", action="store_true", help="every server of fleet.json")
    parser.add_argument("names", nargs="*", metavar="NAME", help="these servers")
    parser.add_argument("--prefix", type=pathlib.Path, default=REPOSITORY / "target" / "fleet")
    parser.add_argument("--work", type=pathlib.Path, help="scratch directory; default PREFIX/work")
    parser.add_argument("--jobs", type=int, default=min(4, (os.cpu_count() or 1) + 1))
    parser.add_argument("--fleet", type=pathlib.Path, default=HERE / "fleet.json",
                        help="another description of servers than fleet.json")
    options = parser.parse_args()
    if options.names and (options.ci or options.all):
        parser.error("NAME... goes without --ci and --all")
    if options.jobs < 1:
        parser.error("--jobs must be at least 1")
    return options


def wanted_servers(servers, options):
    if not options.names:
        return [server for server in servers if options.all or server["ci"]]
    known = {server["name"]: server for server in servers}
    unknown = [name for name in options.names if name not in known]
    if unknown:
        print(f"no server is named {', '.join(unknown)}; there are: " + " ".join(known),
              file=sys.stderr)
        sys.exit(2)
    return [known[name] for name in dict.fromkeys(options.names)]


@contextlib.contextmanager
def only_one(prefix):
    """Two runs on one prefix take turns; the second then finds everything there."""
    with (prefix / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def install_and_report(fleet, server):
    begin = time.monotonic()
    try:
        remark, good = fleet.install(server), True
    except (InstallError, OSError, ValueError) as error:
        remark, good = str(error), False
    report(server, time.monotonic() - begin, "ok" if good else "FAILED", remark)
    return good


def report(server, seconds, outcome, remark):
    package = f"{server['package']}@{server['version']}"
    line = f"{outcome:<7} {server['name']:<20} {package:<58} {seconds:6.1f} s  {remark}"
    print(line.rstrip(), flush=True)


def main():
    options = arguments()
    servers = json.loads(options.fleet.read_text(encoding="utf-8"))
    wanted = wanted_servers(servers, options)
    prefix = pathlib.Path(os.path.abspath(options.prefix))
    work = pathlib.Path(os.path.abspath(options.work or prefix / "work"))
    prefix.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    with only_one(prefix):
        fleet, missing = Fleet(servers, prefix, work), []
        for server in wanted:
            if fleet.installed(server):
                report(server, 0.0, "ok", "already there")
            else:
                missing.append(server)
        fleet.prepare_tools(missing)
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            good = list(pool.map(lambda server: install_and_report(fleet, server), missing))
        try:
            fleet.make_work()
        except InstallError as error:
            good.append(False)
            print(f"FAILED  {work}: {error}")
        total = fleet.write_resolved()
    failed = good.count(False)
    print(f"{len(wanted) - failed} of {len(wanted)} wanted servers installed, {total} in "
          f"{prefix / 'fleet.resolved.json'}, {time.monotonic() - begin:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
