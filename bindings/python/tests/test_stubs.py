"""Types: the stubs of the native half are those of the module, and the package is typed throughout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import machina

def checked(*arguments: str, cwd: Path) -> None:
    ended = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, cwd=cwd, timeout=300)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_stubs_are_those_of_the_module(tmp_path: Path) -> None:
    checked("mypy.stubtest", "machina._machina", cwd=tmp_path)


def test_the_package_is_typed(tmp_path: Path) -> None:
    assert (Path(machina.__file__).parent / "py.typed").is_file()
    checked("mypy", "--strict", "--cache-dir", str(tmp_path), "-p", "machina", cwd=tmp_path)


def test_a_program_is_typed(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        """
import machina
import machina.sync
from machina import Machina, models

async def main() -> None:
    async with Machina("memory:") as m:
        service: models.Service = await m.register({"name": "a"})
        page: models.Page[models.Service] = await m.find(text=service.name, tags=["x"])
        names: list[str] = [one.name for one in page]
        text: str = (await m.call("a", names[0], {"x": 1}, timeout=1.5)).text
        async for event in m.watch(since=page.revision):
            kind: str = event.type

        @m.tool(service="b")
        async def double(n: int) -> int:
            return 2 * n

        doubled: int = await double(2)
        declared: models.Service = await m.native("b").register()

def blocking() -> None:
    with machina.sync.Machina() as m:
        service: models.Service = m.get("a")
        page: models.Page[models.Service] = m.find(service.name, tags=["x"])
        text: str = m.call("a", "b", {"x": 1}, timeout=1.5, progress=print).text
        m.find(colour="red")  # type: ignore[call-arg]
        m.get(1)  # type: ignore[arg-type]
        declared: models.Service = m.native("b").register()
"""
    )
    checked("mypy", "--strict", "--cache-dir", str(tmp_path), "program.py", cwd=tmp_path)
