"""Tests of install.py: real npm and PyPI installs of the smallest servers, and what goes wrong."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import textwrap
import unittest

from tools import STEP_TIMEOUT

HERE = pathlib.Path(__file__).resolve().parent
FLEET = {server["name"]: server for server in json.loads((HERE / "fleet.json").read_text())}


class Install(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.scratch = pathlib.Path(scratch.name)
        self.prefix = self.scratch / "prefix"

    def run_install(self, *args, servers=None, env=None):
        argv = [sys.executable, HERE / "install.py", "--prefix", self.prefix, *args]
        if servers is not None:
            fleet = self.scratch / "fleet.json"
            fleet.write_text(json.dumps(servers))
            argv += ["--fleet", fleet]
        return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=3 * STEP_TIMEOUT, env=env)

    def resolved(self):
        servers = json.loads((self.prefix / "fleet.resolved.json").read_text())
        return {server["name"]: server for server in servers}

    def first_answer(self, server):
        """What an installed server answers to initialize."""
        message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"}}}
        child = subprocess.Popen([server["command"], *server["args"]], env=server["env"],
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                 stderr=subprocess.DEVNULL, text=True)
        with child:
            child.stdin.write(json.dumps(message) + "\n")
            child.stdin.flush()
            answer = json.loads(child.stdout.readline())
            child.terminate()
        return answer["result"]

    def test_a_server_starts_from_its_resolved_line_without_path(self):
        done = self.run_install("commands", "calculator")
        self.assertEqual(done.returncode, 0, done.stdout)
        for name in ("commands", "calculator"):
            server = self.resolved()[name]
            self.assertTrue(pathlib.Path(server["command"]).is_absolute())
            self.assertEqual(self.first_answer(server)["protocolVersion"], server["protocol"])
        started = json.loads((self.prefix / "mcp.json").read_text())["mcpServers"]["commands"]
        self.assertEqual(set(started), {"command", "args", "env"})

    def test_a_half_finished_install_is_repaired_and_a_finished_one_left_alone(self):
        module = self.prefix / "npm" / "commands" / "node_modules" / "mcp-server-commands"
        module.mkdir(parents=True)
        (module / "package.json").write_text("{")
        self.assertNotIn("already there", self.run_install("commands").stdout)
        self.assertIn("commands", self.resolved())
        self.assertIn("already there", self.run_install("commands").stdout)
        (self.prefix / "npm/commands/node_modules/.bin/mcp-server-commands").unlink()
        self.assertNotIn("already there", self.run_install("commands").stdout)

    def test_one_failure_is_told_and_leaves_the_others_usable(self):
        missing = dict(FLEET["commands"], name="missing", version="0.0.999",
                       launch=["npx", "-y", "mcp-server-commands@0.0.999"])
        strange = dict(FLEET["commands"], name="strange", launch=["docker", "run", "x"])
        done = self.run_install("--all", servers=[missing, strange, FLEET["commands"]])
        self.assertEqual(done.returncode, 1, done.stdout)
        lines = done.stdout.splitlines()
        self.assertRegex(lines[-1], "^1 of 3 wanted servers installed")
        self.assertTrue(any(line.startswith("FAILED  missing") and "0.0.999" in line
                            for line in lines), done.stdout)
        self.assertTrue(any(line.startswith("FAILED  strange") and "'docker'" in line
                            for line in lines), done.stdout)
        self.assertEqual(list(self.resolved()), ["commands"])

    def test_without_npm_the_reason_says_what_to_install(self):
        empty = self.scratch / "empty"
        empty.mkdir()
        done = self.run_install("commands", env={"PATH": str(empty), "HOME": str(self.scratch)})
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn("install Node.js 20 or newer", done.stdout)

    def test_a_node_that_is_too_old_is_replaced_in_the_prefix(self):
        old = self.executable("node", f"""\
            [ "$1" = --version ] && echo v18.19.0 && exit 0
            exec {shutil.which("node")} "$@"
            """)
        env = {**os.environ, "PATH": f"{old.parent}{os.pathsep}{os.environ['PATH']}"}
        done = self.run_install("commands", env=env)
        self.assertEqual(done.returncode, 0, done.stdout)
        server = self.resolved()["commands"]
        self.assertIn(str(self.prefix), server["command"])
        self.assertEqual(self.first_answer(server)["protocolVersion"], server["protocol"])

    def test_uv_is_brought_in_even_where_python_makes_no_environments(self):
        (self.scratch / "venv.py").write_text("raise SystemExit('ensurepip is not available')")
        path = [str(pathlib.Path(tool).parent) for tool in map(shutil.which, ("npm", "git", "sh"))]
        env = {**os.environ, "PYTHONPATH": str(self.scratch), "PATH": os.pathsep.join(path)}
        done = self.run_install("calculator", env=env)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn("calculator", self.resolved())

    def executable(self, name, script):
        path = self.scratch / "bin" / name
        path.parent.mkdir()
        path.write_text("#!/bin/sh\n" + textwrap.dedent(script))
        path.chmod(0o755)
        return path

    def test_an_unknown_name_is_refused_with_the_known_ones(self):
        done = self.run_install("filesistem")
        self.assertEqual(done.returncode, 2)
        self.assertIn("no server is named filesistem", done.stdout)
        self.assertIn(" filesystem ", done.stdout)

    def test_the_scratch_directory_has_what_the_servers_expect(self):
        self.assertEqual(self.run_install("--all", servers=[]).returncode, 0)
        self.assertEqual(self.run_install("--all", servers=[]).returncode, 0, "again")
        head = ["git", "-C", self.prefix / "work" / "git" / "repo", "log", "--format=%s"]
        self.assertEqual(subprocess.check_output(head, text=True), "First\n")

    def test_every_server_of_the_fleet_can_be_taken_apart(self):
        sys.path.insert(0, str(HERE))
        self.addCleanup(sys.path.remove, str(HERE))
        from install import parse_launch
        for server in FLEET.values():
            sign = "@" if server["ecosystem"] == "npm" else "=="
            self.assertEqual(parse_launch(server)["specs"][0],
                             f"{server['package']}{sign}{server['version']}")
        self.assertEqual(parse_launch(FLEET["chroma"]), {
            "specs": ["chroma-mcp==0.2.6", "pydantic<2.12"], "executable": "chroma-mcp",
            "args": ["--client-type", "ephemeral"]})


if __name__ == "__main__":
    unittest.main()
