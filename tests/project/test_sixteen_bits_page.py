"""docs/sixteen-bits.md tells the truth: its example runs, and finds what the page says that it finds."""

from __future__ import annotations

from tests.project.readme import README, blocks, printed, table_in, without_figures

PAGE = README.parent / "docs" / "sixteen-bits.md"


def test_the_example_finds_the_last_block_and_the_factor() -> None:
    found, shown = printed(blocks(PAGE)[0]), table_in(PAGE.read_text(encoding="utf-8"), "kernel")
    assert without_figures(found.partition("\n\n")[2]) == without_figures(shown.partition("\n\n")[2])
    assert "times what it should be in the last 8 along axis 0" in found
    assert "times what it should be on average" in found
