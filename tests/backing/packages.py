"""Finds the server programs on this machine, and installs the distribution's packages for what is missing.

Installing starts no server and makes no cluster: what could do either is held back for as long as
apt-get runs, and put back as it was afterwards. Redis comes out of `redis-tools`, which holds the
server's program and no service.
"""

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

POSTGRES_MINIMUM = 15
REDIS_MINIMUM = 6
# Where distributions put the programs of each version.
POSTGRES_HOMES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin")
APT_TIMEOUT = 900


class BackingError(Exception):
    """Why a server cannot be had, in words for whoever started the tests."""


class Root:
    """The file system that packages are installed into; tests use a directory."""

    def __init__(self, path="/"):
        path = pathlib.Path(path)
        self.policy = path / "usr/sbin/policy-rc.d"
        self.clusters = path / "etc/postgresql-common/createcluster.d"


def major_of(program):
    """The major version a server program says it has, or 0."""
    try:
        done = subprocess.run([str(program), "--version"], stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return 0
    found = re.search(r"(?:PostgreSQL\) |v=)(\d+)", done.stdout)
    return int(found.group(1)) if found else 0


def on_path(name):
    found = shutil.which(name)
    return [pathlib.Path(found)] if found else []


def find_postgres(homes=POSTGRES_HOMES):
    """The directory with `postgres` and `initdb` of the newest version that is new enough, or None."""
    homes = [directory for home in homes for directory in pathlib.Path("/").glob(home.lstrip("/"))]
    homes += [program.resolve().parent for program in on_path("postgres")]
    whole = [home for home in homes if (home / "postgres").exists() and (home / "initdb").exists()]
    versions = [(major_of(home / "postgres"), home) for home in whole]
    return max((entry for entry in versions if entry[0] >= POSTGRES_MINIMUM), default=(0, None))[1]


def find_redis():
    """A program that is a Redis server when it is called `redis-server`, or None."""
    for program in on_path("redis-server"):
        if major_of(program) >= REDIS_MINIMUM:
            return program
    # Debian keeps the server and the checking of dumps in one program, which goes by its name.
    for program in on_path("redis-check-rdb"):
        with tempfile.TemporaryDirectory() as directory:
            link = pathlib.Path(directory) / "redis-server"
            link.symlink_to(program)
            if major_of(link) >= REDIS_MINIMUM:
                return program
    return None


@contextlib.contextmanager
def nothing_starts(root):
    """While this lasts, a package that is installed starts no service and makes no cluster."""
    made = []

    def place(path, text, mode):
        for parent in reversed(path.parents):
            if not parent.exists():
                parent.mkdir()
                made.append(parent)
        path.write_text(text)
        path.chmod(mode)
        made.append(path)

    try:
        # One that is there already is the machine's own rule, and stays.
        if not root.policy.exists():
            place(root.policy, "#!/bin/sh\nexit 101\n", 0o755)
        place(root.clusters / "machina-tests.conf", "create_main_cluster = false\n", 0o644)
        yield
    finally:
        for path in reversed(made):
            if path.is_dir():
                # The package may have put its own files there.
                with contextlib.suppress(OSError):
                    path.rmdir()
            else:
                path.unlink(missing_ok=True)


def install(packages, root=None):
    """Installs packages of the distribution. Raises BackingError when that is not possible."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise BackingError(f"install {' and '.join(packages)}: this machine lacks it, and it is installed here only "
                           "as root and where there is apt-get")
    print(f"backing: installing {' '.join(packages)}", flush=True)
    with nothing_starts(root or Root()):
        apt("update")
        apt("install", "-y", "--no-install-recommends", *packages)


def apt(*arguments):
    argv = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3", *arguments]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, errors="replace", env=environment, timeout=APT_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise BackingError(f"{' '.join(argv)} took over {APT_TIMEOUT} s") from None
    if done.returncode != 0:
        raise BackingError(f"{' '.join(argv)} failed:\n" + "\n".join(done.stdout.splitlines()[-20:]))


def postgres():
    """The directory with the programs of PostgreSQL, installed if need be."""
    found = find_postgres()
    if not found:
        install(["postgresql"])
        found = find_postgres()
    if not found:
        raise BackingError(f"PostgreSQL {POSTGRES_MINIMUM} or newer is needed; what this distribution calls "
                           "`postgresql` is older or lacks `initdb`")
    return found


def redis():
    """The program of Redis, installed if need be."""
    found = find_redis()
    if not found:
        install(["redis-tools"])
        found = find_redis()
    if not found:
        raise BackingError(f"Redis {REDIS_MINIMUM} or newer is needed; this distribution's `redis-tools` has no server")
    return found
