#!/usr/bin/env python3
"""Runs a command with a PostgreSQL and a Redis of its own, and stops both afterwards.

    run.py [--no-fsync] -- COMMAND [ARGUMENT ...]

The command finds MACHINA_TEST_POSTGRES_URL and MACHINA_TEST_REDIS_URL in its environment. One that is
set already is left as it is: that server is used, and none is started in its place. What is missing
on the machine is installed from the distribution's packages.

Exit code: the command's; 128 + n if it, or this, was ended by signal n; 1 if a server cannot be had.
"""

import argparse
import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse

from packages import BackingError
from servers import Certificates, Postgres, Redis

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# How long the command may take to end after a signal.
LEAVE_TIMEOUT = 15


class Interrupted(Exception):
    """A signal asked for the end."""

    def __init__(self, number):
        super().__init__(number)
        self.number = number


def interrupt(number, _frame):
    # The cleaning up that follows is not to be interrupted in its turn.
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(number)


def answers(variable):
    """Whether the server that the environment names is there; says so if it is not."""
    url = urllib.parse.urlsplit(os.environ[variable])
    default = 6379 if url.scheme.startswith("redis") else 5432
    try:
        with socket.create_connection((url.hostname or "127.0.0.1", url.port or default), timeout=5):
            return True
    except OSError as error:
        raise BackingError(f"{variable} is set, but nothing answers at {url.hostname}:{url.port or default}: "
                           f"{error}") from None


@contextlib.contextmanager
def directory():
    """A directory that the servers' user can reach, gone afterwards."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="machina-backing-"))
    try:
        path.chmod(0o711)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def servers(fsync):
    """Starts what the environment does not name, and yields the variables to add to it."""
    kinds = {
        "MACHINA_TEST_POSTGRES_URL": lambda at, tls: Postgres(at / "postgres", tls, fsync),
        "MACHINA_TEST_REDIS_URL": lambda at, tls: Redis(at / "redis", tls),
    }
    missing = [variable for variable in kinds if not (os.environ.get(variable) and answers(variable))]
    with contextlib.ExitStack() as stack:
        variables = {}
        if missing:
            place = stack.enter_context(directory())
            certificates = Certificates(place)
        for variable in missing:
            server = kinds[variable](place, certificates)
            stack.callback(server.stop)
            server.start()
            variables.update(server.variables())
            print(f"backing: {server.name} on port {server.port}", flush=True)
        yield variables


def run(command, variables):
    """Runs the command; its exit code."""
    try:
        child = subprocess.Popen(command, env={**os.environ, **variables})
    except OSError as error:
        print(f"backing: cannot run {command[0]}: {error.strerror}", file=sys.stderr)
        return 127 if isinstance(error, FileNotFoundError) else 126
    try:
        code = child.wait()
    except Interrupted as interrupted:
        child.send_signal(interrupted.number)
        try:
            child.wait(LEAVE_TIMEOUT)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        raise
    return 128 - code if code < 0 else code


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0],
                                     usage="%(prog)s [--no-fsync] -- COMMAND [ARGUMENT ...]")
    parser.add_argument("--no-fsync", action="store_true",
                        help="let PostgreSQL keep commits in memory: faster, and no test of durability means anything")
    parser.add_argument("command", nargs="+", metavar="COMMAND")
    options = parser.parse_args()
    for each in SIGNALS:
        signal.signal(each, interrupt)
    begin = time.monotonic()
    try:
        with servers(not options.no_fsync) as variables:
            print(f"backing: ready after {time.monotonic() - begin:.1f} s", flush=True)
            return run(options.command, variables)
    except BackingError as error:
        print(f"backing: FAILED: {error}", file=sys.stderr)
        return 1
    except Interrupted as interrupted:
        return 128 + interrupted.number


if __name__ == "__main__":
    sys.exit(main())
