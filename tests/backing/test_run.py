#!/usr/bin/env python3
"""Tests of run.py and serve.py with real servers, and of installing without touching the machine."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.parse

import packages
from packages import BackingError

HERE = pathlib.Path(__file__).resolve().parent
TIMEOUT = 120


def environment(**more):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MACHINA_TEST_")}
    return {**clean, **more}


def port_of(url):
    return urllib.parse.urlsplit(url).port


def is_redis(url):
    parts = urllib.parse.urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        connection.sendall(f"AUTH {parts.password}\r\nPING\r\n".encode())
        answer = b""
        while b"PONG" not in answer:
            part = connection.recv(64)
            if not part:
                return False
            answer += part
        return answer.startswith(b"+OK")


def is_postgres(url):
    """Whether what answers offers TLS and asks for a password, as PostgreSQL does."""
    parts = urllib.parse.urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        connection.sendall(bytes([0, 0, 0, 8, 4, 210, 22, 47]))
        tls = connection.recv(1)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        hello = b"\0\3\0\0" + f"user\0{parts.username}\0database\0machina\0\0".encode()
        connection.sendall((len(hello) + 4).to_bytes(4, "big") + hello)
        answer = connection.recv(64)
    return tls == b"S" and answer[:1] == b"R" and b"SCRAM-SHA-256" in answer


def is_free(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


class Here(unittest.TestCase):
    """A directory that the servers' directories are made in, so that what is left is seen."""

    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.scratch = pathlib.Path(scratch.name)
        self.scratch.chmod(0o711)

    def run_py(self, *arguments, **variables):
        return subprocess.run(self.argv(*arguments), capture_output=True, text=True, timeout=TIMEOUT,
                              env=environment(TMPDIR=str(self.scratch), **variables))

    @staticmethod
    def argv(*arguments, program="run.py"):
        return [sys.executable, str(HERE / program), *arguments]

    def start(self, *arguments, program="run.py", **more):
        child = subprocess.Popen(self.argv(*arguments, program=program), stdout=subprocess.PIPE, text=True,
                                 env=environment(TMPDIR=str(self.scratch)), **more)
        self.addCleanup(child.stdout.close)
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        return child

    def assert_gone(self, *ports):
        end = time.monotonic() + 10
        while time.monotonic() < end and not all(map(is_free, ports)):
            time.sleep(0.05)
        self.assertEqual([port for port in ports if not is_free(port)], [])

    def assert_nothing_left(self, *ports):
        self.assert_gone(*ports)
        self.assertEqual(list(self.scratch.iterdir()), [])


PRINT_URLS = "import os, json; print(json.dumps({k: v for k, v in os.environ.items() if k.startswith('MACHINA_TEST_')}))"


class Run(Here):
    def test_both_answer_and_both_end(self):
        seen = self.scratch.parent / f"{self.scratch.name}.json"
        self.addCleanup(seen.unlink)
        check = (f"import os, sys; sys.path.insert(0, {str(HERE)!r}); import test_run as t; {PRINT_URLS}; e = os.environ\n"
                 f"assert t.is_redis(e['MACHINA_TEST_REDIS_URL']) and t.is_postgres(e['MACHINA_TEST_POSTGRES_URL'])\n"
                 f"open({str(seen)!r}, 'w').write(json.dumps(dict(e)))")
        done = self.run_py("--", sys.executable, "-c", check)
        self.assertEqual(done.returncode, 0, done)
        variables = json.loads(seen.read_text())
        self.assert_nothing_left(*(port_of(variables[f"MACHINA_TEST_{kind}_URL"])
                                   for kind in ("POSTGRES", "REDIS", "REDIS_TLS")))

    def test_the_exit_code_is_the_commands(self):
        self.assertEqual(self.run_py("--no-fsync", "--", "sh", "-c", "exit 7").returncode, 7)
        self.assertEqual(self.run_py("--no-fsync", "--", "sh", "-c", "kill -9 $$").returncode, 128 + 9)
        missing = self.run_py("--no-fsync", "--", "no-such-command")
        self.assertEqual((missing.returncode, missing.stderr.strip()),
                         (127, "backing: cannot run no-such-command: No such file or directory"))
        self.assert_nothing_left()

    def test_a_signal_reaches_the_command_and_ends_the_servers(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            command = f"trap 'echo heard; exit 0' TERM INT; {sys.executable} -c \"{PRINT_URLS}\"; while :; do sleep 0.1; done"
            child = self.start("--no-fsync", "--", "sh", "-c", command)
            line = next(line for line in child.stdout if line.startswith("{"))
            child.send_signal(number)
            self.assertIn("heard", child.stdout.read())
            self.assertEqual(child.wait(TIMEOUT), 128 + number)
            self.assert_nothing_left(*map(port_of, urls(line)))

    def test_the_servers_do_not_survive_a_kill(self):
        child = self.start("--no-fsync", "--", "sh", "-c", f"{sys.executable} -c \"{PRINT_URLS}\"; sleep 1")
        line = next(line for line in child.stdout if line.startswith("{"))
        child.kill()
        self.assert_gone(*map(port_of, urls(line)))

    def test_servers_of_the_environment_are_used(self):
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
            given = {"MACHINA_TEST_POSTGRES_URL": f"postgres://127.0.0.1:{one.getsockname()[1]}/x",
                     "MACHINA_TEST_REDIS_URL": f"redis://127.0.0.1:{other.getsockname()[1]}"}
            done = self.run_py("--", sys.executable, "-c", PRINT_URLS, **given)
        self.assertEqual(json.loads(done.stdout.splitlines()[-1]), given, done)
        self.assertNotIn("port", done.stdout)

    def test_one_may_be_given_and_the_other_started(self):
        with socket.create_server(("127.0.0.1", 0)) as one:
            given = f"postgres://127.0.0.1:{one.getsockname()[1]}/x"
            done = self.run_py("--", sys.executable, "-c", PRINT_URLS, MACHINA_TEST_POSTGRES_URL=given)
        variables = json.loads(done.stdout.splitlines()[-1])
        self.assertEqual(variables["MACHINA_TEST_POSTGRES_URL"], given)
        self.assertIn("redis://", variables["MACHINA_TEST_REDIS_URL"])
        self.assertNotIn("PostgreSQL", done.stdout)

    def test_an_absent_server_of_the_environment_is_told_without_its_password(self):
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
            done = self.run_py("--", "true", MACHINA_TEST_REDIS_URL=f"redis://default:hush@127.0.0.1:{port}")
        self.assertEqual(done.returncode, 1, done)
        self.assertIn(f"MACHINA_TEST_REDIS_URL is set, but nothing answers at 127.0.0.1:{port}", done.stderr)
        self.assertNotIn("hush", done.stdout + done.stderr)


def urls(line):
    return [value for name, value in json.loads(line).items() if name.endswith("_URL")]


class Serve(Here):
    def order(self, child, word):
        child.stdin.write(word + "\n")
        child.stdin.flush()
        return child.stdout.readline().strip()

    def serve(self, kind):
        child = self.start(kind, program="serve.py", stdin=subprocess.PIPE)
        self.addCleanup(child.stdin.close)
        return child, json.loads(next(line for line in child.stdout if line.startswith("{")))

    def test_redis_can_be_killed_and_started_again(self):
        child, told = self.serve("redis")
        url = told["MACHINA_TEST_REDIS_URL"]
        self.assertTrue(is_redis(url))
        self.assertEqual(self.order(child, "kill"), "ok")
        self.assertTrue(is_free(told["port"]))
        self.assertEqual(self.order(child, "start"), "ok")
        self.assertTrue(is_redis(url))
        self.assertIn("unknown order `dance`", self.order(child, "dance"))
        child.stdin.close()
        self.assertEqual(child.wait(TIMEOUT), 0)
        self.assert_nothing_left(told["port"])

    def test_redis_can_be_paused(self):
        child, told = self.serve("redis")
        self.assertEqual(self.order(child, "pause"), "ok")
        with socket.create_connection(("127.0.0.1", told["port"]), timeout=0.3) as connection:
            connection.sendall(b"PING\r\n")
            self.assertRaises(socket.timeout, connection.recv, 1)
        self.assertEqual(self.order(child, "resume"), "ok")
        self.assertTrue(is_redis(told["MACHINA_TEST_REDIS_URL"]))
        self.assertEqual([self.order(child, word) for word in ("pause", "stop", "start")], ["ok"] * 3)
        self.assertTrue(is_redis(told["MACHINA_TEST_REDIS_URL"]))

    def test_postgres_can_be_killed_and_stopped(self):
        child, told = self.serve("postgres")
        for word in ("kill", "stop"):
            self.assertTrue(is_postgres(told["MACHINA_TEST_POSTGRES_URL"]))
            self.assertEqual([self.order(child, word), is_free(told["port"])], ["ok", True])
            self.assertEqual(self.order(child, "start"), "ok")
        self.assertTrue(is_postgres(told["MACHINA_TEST_POSTGRES_URL"]))

    def test_another_kind_is_refused(self):
        done = subprocess.run(self.argv("oracle", program="serve.py"), capture_output=True, text=True, timeout=TIMEOUT)
        self.assertEqual(done.returncode, 2)
        self.assertIn("serve.py postgres|redis", done.stderr)


class Installing(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.path = pathlib.Path(scratch.name)
        self.root = packages.Root(self.path)

    def files(self):
        return sorted(str(path.relative_to(self.path)) for path in self.path.rglob("*"))

    def test_nothing_starts_meanwhile_and_nothing_is_left(self):
        with packages.nothing_starts(self.root):
            self.assertEqual(subprocess.run([str(self.root.policy)]).returncode, 101)
            [file] = self.root.clusters.iterdir()
            self.assertEqual(file.read_text(), "create_main_cluster = false\n")
        self.assertEqual(self.files(), [])

    def test_nothing_is_left_after_a_failure_either(self):
        with self.assertRaises(BackingError), packages.nothing_starts(self.root):
            raise BackingError("no network")
        self.assertEqual(self.files(), [])

    def test_what_was_there_stays(self):
        self.root.policy.parent.mkdir(parents=True)
        self.root.policy.write_text("#!/bin/sh\nexit 0\n")
        with packages.nothing_starts(self.root):
            # As the package does.
            (self.root.clusters.parent / "createcluster.conf").write_text("ssl = on\n")
        self.assertEqual(self.root.policy.read_text(), "#!/bin/sh\nexit 0\n")
        self.assertEqual(self.files(), ["etc", "etc/postgresql-common", "etc/postgresql-common/createcluster.conf",
                                        "usr", "usr/sbin", "usr/sbin/policy-rc.d"])

    def test_the_newest_postgres_is_taken(self):
        def make(name, version):
            home = self.path / name / "bin"
            home.mkdir(parents=True)
            for program in ("postgres", "initdb"):
                (home / program).write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")
                (home / program).chmod(0o755)
            return home

        homes = [f"{self.path}/*/bin"]
        wide, os.environ["PATH"] = os.environ["PATH"], str(self.path)
        self.addCleanup(os.environ.__setitem__, "PATH", wide)
        make("fourteen", "14.9 (Debian)")
        self.assertIsNone(packages.find_postgres(homes))
        make("fifteen", "15.2")
        newest = make("seventeen", "17beta1")
        self.assertEqual(packages.find_postgres(homes), newest)
        (newest / "initdb").unlink()
        self.assertEqual(packages.find_postgres(homes).parent.name, "fifteen")

    def test_without_apt_it_says_what_to_install(self):
        wide, os.environ["PATH"] = os.environ["PATH"], str(self.path)
        self.addCleanup(os.environ.__setitem__, "PATH", wide)
        with self.assertRaisesRegex(BackingError, re.escape("install postgresql and redis-tools: this machine lacks")):
            packages.install(["postgresql", "redis-tools"])


if __name__ == "__main__":
    unittest.main()
