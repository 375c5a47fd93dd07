"""What the guides show works: their code runs, and the docstrings' too."""

from __future__ import annotations

import doctest
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, binary

PAGES = ["docs/guide/python.md", "docs/guide/fastapi.md"]


def blocks() -> list[tuple[str, str]]:
    """The Python of each guide: blocks of a page that belong together are marked `python NAME`."""
    found: dict[tuple[str, str], list[str]] = {}
    for page in PAGES:
        fenced = re.findall(r"^```python(?: (\w+))?\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
        for number, (name, text) in enumerate(fenced):
            found.setdefault((page, name or str(number)), []).append(text)
    return [(f"{page}#{name}", "\n".join(texts)) for (page, name), texts in found.items()]


def test_there_is_something_to_run() -> None:
    assert len(blocks()) >= 6


@pytest.mark.parametrize(("name", "text"), blocks())
def test_code_in_the_guides(name: str, text: str, tmp_path: Path, served: str) -> None:
    text = text.replace("https://machina.example", served)
    needs_loop = re.search(r"^(async with|await|async for)|^[^\s#@].*\bawait\b", text, re.MULTILINE)
    if needs_loop and "asyncio.run(" not in text:
        lines = "\n".join("    " + line for line in text.splitlines())
        text = f"import asyncio\nasync def main():\n{lines}\nasyncio.run(main())\n"
    fixture = binary("fixture")
    text = text.replace('"uvx", "args": ["mcp-server-time"]', f'{fixture!r}, "args": ["stdio"]')
    text = text.replace('"get_current_time", {"timezone": "Europe/Paris"}', '"add", {"a": 2, "b": 3}')
    (tmp_path / "program.py").write_text(text)
    ended = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, f"{name}\n{ended.stdout}\n{ended.stderr}"
    for line in re.findall(r"# prints (.*)", text):
        assert line in ended.stdout, f"{name}: {line!r} is not in {ended.stdout!r}"


@pytest.mark.parametrize("module", ["machina", "machina.sync", "machina.testing"])
def test_docstrings(module: str) -> None:
    results = doctest.testmod(importlib.import_module(module))
    assert results.attempted and not results.failed
