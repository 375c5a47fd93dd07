"""The examples: the quickstart, the application, the host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from conftest import ROOT, binary

EXAMPLES = ROOT / "examples"


def run(*arguments: str, cwd: Path, timeout: float = 300) -> str:
    ended = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=cwd, timeout=timeout, env=dict(os.environ)
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_the_quickstart_prints_what_the_others_print(tmp_path: Path) -> None:
    assert run(str(EXAMPLES / "quickstart.py"), cwd=tmp_path) == (EXAMPLES / "quickstart.txt").read_text()


def test_native_tools(tmp_path: Path) -> None:
    assert run(str(EXAMPLES / "native_tools.py"), cwd=tmp_path).splitlines() == [
        'calculator/calculate: {"value":8.0}',
        "calculator/calculate: failed: ValueError: nothing is divided by zero",
        "calculator/calculate: invalid",
        'strings/count: {"characters":19,"words":4,"lines":2}',
        "strings/change_case: Some Words",
        'transform/json_to_csv: name,price | tea,3 | "milk, fresh",2',
        'transform/csv_to_json: [{"name":"milk, fresh","price":"2"}]',
        "own/never: timeout",
        "found: transform/json_to_csv",
    ]


def test_the_application(tmp_path: Path) -> None:
    tests = str(EXAMPLES / "fastapi_app/test_app.py")
    said = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), tests, cwd=tmp_path)
    assert "5 passed" in said, said


QUESTION = ["add two numbers", '{"a": 2, "b": 3}']
SAID = ["found: fixture/add", "answer: 5"]


def importable(tmp_path: Path) -> str:
    servers = {"mcpServers": {"fixture": {"command": binary("fixture"), "args": ["stdio"]}}}
    (tmp_path / "mcp.json").write_text(json.dumps(servers))
    return str(tmp_path / "mcp.json")


def test_a_host_that_starts_machina(tmp_path: Path) -> None:
    words = [binary("binary"), "--store", "memory:", "mcp", "--import", importable(tmp_path), "--", *QUESTION]
    assert run(str(EXAMPLES / "mcp_host/host.py"), *words, cwd=tmp_path).splitlines()[1:] == SAID


def test_a_host_that_asks_a_served_machina(served: str, tmp_path: Path) -> None:
    import machina.sync

    with machina.sync.Machina(served) as m:
        m.put({"name": "fixture", "instances": [{"stdio": {"command": binary("fixture"), "args": ["stdio"]}}]})
        try:
            said = run(str(EXAMPLES / "mcp_host/host.py"), f"{served}/mcp", *QUESTION, cwd=tmp_path).splitlines()
        finally:
            m.deregister("fixture")
    assert "find_tool" in said[0] and said[1:] == SAID
