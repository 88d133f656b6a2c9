"""docs/repro.md shows what its example writes, and that does what the page says."""

from __future__ import annotations

import re
from pathlib import Path

from tests.repro.page import exported, shown
from tests.repro.running import fixed, run


def without_digits(text: str) -> str:
    """Versions and rounding differ from place to place."""
    return re.sub(r"\d[\d.]*(e[-+]\d+)?(\+\w+)?", "#", text)


def test_the_script_of_the_page_is_what_its_example_writes(tmp_path: Path) -> None:
    script = exported(tmp_path)
    assert without_digits(script.read_text()) == without_digits(shown("script"))
    said = run(script, beside=["torch"])
    assert said.status == 1
    assert without_digits(said.text) == without_digits(shown("output"))


def test_the_script_of_the_page_can_be_mended(tmp_path: Path) -> None:
    script = tmp_path / "bug.py"
    script.write_text(shown("script"))
    assert run(script, beside=["torch"]).status == 1
    assert run(fixed(script, "(s + x * s)", "(s + x * s * (1 - s))"), beside=["torch"]).status == 0
