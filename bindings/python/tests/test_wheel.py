"""What is installed: one wheel for every Python from 3.10 on."""

from __future__ import annotations

from importlib.metadata import distribution

from machina import _machina


def test_the_wheel_is_for_every_python_from_3_10_on() -> None:
    described = distribution("machina").read_text("WHEEL")
    assert described is not None
    tags = [line.removeprefix("Tag: ") for line in described.splitlines() if line.startswith("Tag: ")]
    assert tags and all(tag.startswith("cp310-abi3-") for tag in tags), tags
    assert _machina.__file__.endswith(".abi3.so")
