"""docs/derivatives.md: its example holds."""

from __future__ import annotations

from tests.project.readme import README, blocks

PAGE = README.parent / "docs" / "derivatives.md"


def test_the_example_holds() -> None:
    (example,) = blocks(PAGE)
    exec(compile(example, str(PAGE), "exec"), {})  # noqa: S102  # our own page
