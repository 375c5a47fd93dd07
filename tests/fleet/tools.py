"""What installing the fleet needs: a log of every command, uv, and a Node that is new enough.

Each is taken from the machine where it is there, and otherwise brought into the prefix; nothing
outside the prefix is changed, but for the Debian package python3-venv when nothing else helps.
"""

import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import time

NODE_MINIMUM = 20
NODE_PROVIDED = 24
PYTHON_MINIMUM = ">=3.11"
PYTHON_LIMIT = "<3.14"
STEP_TIMEOUT = 900
# How long is waited before what needs the network is tried again.
PAUSES = (5, 20)


class InstallError(Exception):
    """Why one server (or one tool that servers need) could not be installed, in one line."""


def patiently(attempt, pauses=PAUSES):
    """What needs the network fails at times; it is tried again after each pause."""
    for pause in pauses:
        try:
            return attempt()
        except InstallError:
            time.sleep(pause)
    return attempt()


class Log:
    """The full output of what was run for one server, kept for whoever reads a failure."""

    def __init__(self, path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")

    def run(self, argv, cwd=None):
        with self.path.open("a", encoding="utf-8") as out:
            out.write("$ " + " ".join(map(str, argv)) + "\n")
            out.flush()
            begin = out.tell()
            try:
                code = subprocess.run(
                    [str(a) for a in argv], cwd=cwd, stdin=subprocess.DEVNULL,
                    stdout=out, stderr=subprocess.STDOUT, timeout=STEP_TIMEOUT,
                ).returncode
            except subprocess.TimeoutExpired:
                raise InstallError(f"{argv[0]} took over {STEP_TIMEOUT} s ({self.path})") from None
            except OSError as error:
                raise InstallError(f"cannot run {argv[0]}: {error.strerror}") from None
        if code != 0:
            raise InstallError(f"{self.telling_line(begin)} ({self.path})")

    def run_online(self, argv, cwd=None):
        patiently(lambda: self.run(argv, cwd))

    def telling_line(self, begin):
        text = self.path.read_bytes()[begin:].decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        telling = [line for line in lines if re.match(r"(?i)npm error|error|cause|×|╰|fatal", line)]
        return " ".join(telling[:2] or lines[-1:] or ["failed without a word"])[:300]


def output_of(argv, env=None):
    """What a command prints, or None when it is missing or fails."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, timeout=60, check=True, env=env)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip()


class Uv:
    """`uv`, from PATH or brought into the prefix, and the Python it makes environments with."""

    def __init__(self, prefix):
        self.path = self.find(prefix)

    def python(self, minimum):
        """An interpreter for a server that asks for `minimum` (None: whatever suits most)."""
        request = f"{minimum or PYTHON_MINIMUM},{PYTHON_LIMIT}"
        # pyenv shows uv only the version that is switched on; the others are there too.
        pyenv = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv"))
        others = sorted(map(str, pyenv.glob("versions/3.*/bin")))
        path = os.pathsep.join([os.environ.get("PATH", ""), *others])
        found = output_of([self.path, "python", "find", request], {**os.environ, "PATH": path})
        if found:
            return found.splitlines()[-1]
        # Asked for by its version, uv downloads it, if this machine's network lets it.
        return request if minimum else sys.executable

    @staticmethod
    def find(prefix):
        target = prefix / "tools" / "uv"
        log = Log(prefix / "log" / "uv.log")
        on_path = shutil.which("uv")
        if on_path and output_of([on_path, "--version"]):
            return on_path
        binary = target / "bin" / "uv"
        if output_of([str(binary), "--version"]):
            return str(binary)

        def in_venv():
            log.run([sys.executable, "-m", "venv", target])
            log.run_online([target / "bin" / "python", "-m", "pip", "install", "uv"])

        def beside_pip():
            log.run_online([sys.executable, "-m", "pip", "install", "--target", target, "uv"])

        def with_apt():
            if os.geteuid() != 0 or not shutil.which("apt-get"):
                raise InstallError("python3-venv is not installed, and apt-get cannot be used")
            log.run_online(["apt-get", "update"])
            log.run_online(["apt-get", "install", "-y", "--no-install-recommends", "python3-venv"])
            in_venv()

        reasons = []
        for way in (in_venv, beside_pip, with_apt):
            shutil.rmtree(target, ignore_errors=True)
            try:
                way()
            except InstallError as error:
                reasons.append(str(error))
                continue
            if output_of([str(binary), "--version"]):
                return str(binary)
        raise InstallError("no uv: install it (`pip install uv`); tried: " + "; ".join(reasons))


class Node:
    """`npm`, and a Node that is new enough: the machine's, or one brought into the prefix."""

    minimum = NODE_MINIMUM

    def __init__(self, prefix):
        self.npm = shutil.which("npm")
        if not self.npm:
            raise InstallError("no npm: install Node.js 20 or newer with npm")
        self.node = shutil.which("node")
        self.major = self.major_of(self.node)
        if self.major < self.minimum:
            self.node = self.provide(prefix)
            self.major = self.major_of(self.node)

    @staticmethod
    def major_of(node):
        version = output_of([node, "--version"]) if node else None
        return int(re.match(r"v(\d+)", version).group(1)) if version else 0

    def provide(self, prefix):
        """The npm package that carries the binary for this platform; no script has to run."""
        machine = platform.machine().lower()
        arch = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64"}.get(machine, machine)
        package = f"node-{sys.platform}-{arch}"
        home = prefix / "tools" / "node"
        node = home / "node_modules" / package / "bin" / "node"
        if self.major_of(str(node)) < NODE_PROVIDED:
            log = Log(prefix / "log" / "node.log")
            npm_project(home, "machina-fleet-node")
            log.run_online(self.install_argv(f"{package}@{NODE_PROVIDED}"), cwd=home)
        return str(node)

    def install_argv(self, spec):
        return [self.npm, "install", "--ignore-scripts", "--no-audit", "--no-fund",
                "--prefer-offline", "--omit=dev", "--loglevel=error", spec]


def npm_project(directory, name):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "package.json").write_text(json.dumps({"name": name, "private": True}))
