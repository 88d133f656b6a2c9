"""docs/capture.md tells the truth: its first example runs, and finds what the page says that it finds."""

from __future__ import annotations

from gradwitness.run.failing import short
from tests.project.readme import README, blocks, printed, table_in, without_figures

PAGE = README.parent / "docs" / "capture.md"


def test_the_first_example_finds_a_ten_billionth() -> None:
    found, shown = printed(blocks(PAGE)[0]), table_in(PAGE.read_text(encoding="utf-8"), "captured")
    found = found.replace(short(str(README)), "silu.py")
    assert without_figures(found.partition("\n\n")[2]) == without_figures(shown.partition("\n\n")[2])
    assert "disagree: off by 1e-10 of its norm" in found
