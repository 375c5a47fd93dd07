#!/usr/bin/env python3
"""Installs what checks the OpenAPI document: a validator, schemathesis, a parser of metrics.

    install.py [--prefix DIR]

Which versions: requirements.txt. A stamp written last marks it complete: a second run does nothing,
and a changed version is installed afresh.

Exit code: 0 all is there, 1 something could not be installed.
"""

import argparse
import hashlib
import os
import pathlib
import shutil
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
sys.path.insert(0, str(HERE.parent / "fleet"))

from tools import InstallError, Log, Uv  # noqa: E402

REQUIREMENTS = HERE / "requirements.txt"


def wanted():
    return hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()


def complete(prefix):
    try:
        stamp = (prefix / "stamp").read_text(encoding="utf-8")
    except OSError:
        return False
    return stamp == wanted() and (prefix / "python" / "bin" / "schemathesis").exists()


def install(prefix, tools):
    uv, venv = Uv(tools), prefix / "python"
    shutil.rmtree(venv, ignore_errors=True)
    log = Log(prefix / "log" / "python.log")
    log.run([uv.path, "venv", "--no-project", "--python", uv.python(None), venv])
    log.run_online([uv.path, "pip", "install", "--python", venv / "bin" / "python", "--no-progress",
                    "--compile-bytecode", "--no-deps", "-r", REQUIREMENTS])
    (prefix / "stamp").write_text(wanted(), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--prefix", type=pathlib.Path, default=REPOSITORY / "target" / "openapi")
    prefix = pathlib.Path(os.path.abspath(parser.parse_args().prefix))
    prefix.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    if complete(prefix):
        print(f"openapi: already in {prefix}")
        return 0
    try:
        # Shared with the fleet, so that uv is brought in once.
        install(prefix, REPOSITORY / "target" / "fleet")
    except InstallError as error:
        print(f"openapi: FAILED: {error}", file=sys.stderr)
        return 1
    print(f"openapi: installed in {prefix}, {time.monotonic() - begin:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
