#!/usr/bin/env python3
"""Installs what others wrote to test MCP with: conformance suites, the inspector, two clients.

    install.py [--prefix DIR]

What and which versions: package.json with its lock file, and requirements.txt. A stamp written last
marks it complete: a second run does nothing, and a changed version is installed afresh. Afterwards
PREFIX/peers.json says where Node, Python and the npm packages are.

Exit code: 0 all is there, 1 something could not be installed.
"""

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
sys.path.insert(0, str(HERE.parent / "fleet"))

from tools import InstallError, Log, Node, Uv  # noqa: E402

# The suites and the inspector ask for it.
NODE_MINIMUM = 22
# The script that starts each, inside its package.
SCRIPTS = {
    "conformance_0_1": "conformance-0.1/dist/index.js",
    "conformance_0_2": "conformance-0.2/dist/index.js",
    "inspector": "@modelcontextprotocol/inspector/clients/launcher/build/index.js",
}


class PeersNode(Node):
    """The machine's Node if it is new enough, or one brought into the prefix."""

    minimum = NODE_MINIMUM


def wanted():
    """What the stamp says of a complete installation: the pinned versions, and where they lie."""
    files = [HERE / name for name in ("package.json", "package-lock.json", "requirements.txt")]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def complete(prefix):
    try:
        peers = json.loads((prefix / "peers.json").read_text())
        programs = [peers["node"], peers["python"], *peers["scripts"].values()]
        return peers["stamp"] == wanted() and all(os.path.exists(path) for path in programs)
    except (OSError, ValueError, KeyError):
        return False


def install(prefix, tools):
    node = PeersNode(tools)
    npm = prefix / "npm"
    shutil.rmtree(npm, ignore_errors=True)
    npm.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, npm)
    log = Log(prefix / "log" / "npm.log")
    log.run_online([node.npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline",
                    "--omit=dev", "--loglevel=error"], cwd=npm)

    uv, venv = Uv(tools), prefix / "python"
    shutil.rmtree(venv, ignore_errors=True)
    log = Log(prefix / "log" / "python.log")
    log.run([uv.path, "venv", "--no-project", "--python", uv.python(None), venv])
    log.run_online([uv.path, "pip", "install", "--python", venv / "bin" / "python", "--no-progress",
                    "--compile-bytecode", "--no-deps", "-r", HERE / "requirements.txt"])

    scripts = {name: str(npm / "node_modules" / path) for name, path in SCRIPTS.items()}
    peers = {"stamp": wanted(), "node": node.node, "python": str(venv / "bin" / "python"),
             "npm": str(npm), "scripts": scripts}
    temporary = prefix / "peers.json.new"
    temporary.write_text(json.dumps(peers, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, prefix / "peers.json")


@contextlib.contextmanager
def only_one(prefix):
    """Two runs on one prefix take turns; the second then finds everything there."""
    with (prefix / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--prefix", type=pathlib.Path, default=REPOSITORY / "target" / "peers")
    prefix = pathlib.Path(os.path.abspath(parser.parse_args().prefix))
    prefix.mkdir(parents=True, exist_ok=True)
    # Shared with the fleet, so that Node and uv are brought in once.
    tools = REPOSITORY / "target" / "fleet"
    begin = time.monotonic()
    with only_one(prefix):
        if complete(prefix):
            print(f"peers: already in {prefix}")
            return 0
        try:
            install(prefix, tools)
        except InstallError as error:
            print(f"peers: FAILED: {error}", file=sys.stderr)
            return 1
        good = complete(prefix)
    print(f"peers: {'installed' if good else 'FAILED, something is missing'} in {prefix}, "
          f"{time.monotonic() - begin:.1f} s")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
