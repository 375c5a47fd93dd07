"""The parity table names every method of the Rust facade, and only methods that exist."""

from __future__ import annotations

import re
from pathlib import Path

from conftest import ROOT

import machina
import machina.sync

PAGE = ROOT / "docs/reference/parity.md"
FACADE = [ROOT / "machina-core/src" / name for name in ("machina.rs", "standing.rs")]
NATIVE = ROOT / "machina-core/src/native/service.rs"


def rows() -> dict[str, dict[str, str]]:
    """The rows of the first table, by the method in Rust."""
    lines = [line for line in PAGE.read_text().split("Beside the facade")[0].splitlines() if line.startswith("|")]
    head = [cell.strip().lower() for cell in lines[0].strip("|").split("|")]
    table = {}
    for line in lines[2:]:
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]
        row = dict(zip(head, cells, strict=True))
        table[row["rust"].strip("`")] = row
    return table


def methods(path: Path) -> set[str]:
    """Public methods of the facade, and those of its traits."""
    text = path.read_text().split("#[cfg(test)]")[0]
    inherent = re.findall(r"^    pub (?:async )?fn (\w+)", text, re.MULTILINE)
    blocks = re.findall(r"^pub trait .*?^}", text, re.MULTILINE | re.DOTALL)
    traits = re.findall(r"^    async fn (\w+)\(", "\n".join(blocks), re.MULTILINE)
    return set(inherent) | set(traits)


def test_every_method_of_the_facade_has_a_row() -> None:
    facade = {name for path in FACADE for name in methods(path)} | {"native"}
    facade |= {f"NativeService::{name}" for name in methods(NATIVE) - {"native"}}
    assert len(facade) > 30, "this test no longer sees the facade"
    missing = sorted(facade - set(rows()))
    assert not missing, f"docs/reference/parity.md says nothing of {missing}"
    assert not sorted(set(rows()) - facade), "docs/reference/parity.md names what the facade does not have"


def test_the_python_column_names_methods_that_exist() -> None:
    named: set[str] = set()
    for row in rows().values():
        names = re.findall(r"`(?:(\w+)\.)?(\w+)`", row["python"])
        assert names or row["python"].startswith("–"), f"{row['rust']}: a method, or – and why there is none"
        for owner, name in names:
            holder = {"": machina.Machina, "native": machina.NativeService}[owner]
            there = hasattr(holder, name) or (owner, name) == ("native", "name")
            assert there, f"{row['rust']}: there is no {name}"
            if not owner:
                assert hasattr(machina.sync.Machina, name)
                named.add(name)
    public = {name for name in vars(machina.Machina) if not name.startswith("_")}
    named |= set(re.findall(r"`(\w+)`", PAGE.read_text().split("Beside the facade")[1]))
    assert not public - named, f"docs/reference/parity.md says nothing of {sorted(public - named)}"
