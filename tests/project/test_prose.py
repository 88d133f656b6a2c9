"""The pages are easy to read: no sentence is too long, and none is turned round as if it were translated."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.project.prose import LIMIT, PAGES, ROOT, hard, sentences

LONG = " ".join(["word"] * (LIMIT + 1)) + "."
SHORT = " ".join(["word"] * LIMIT) + "."


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_is_easy_to_read(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert hard(text) == []
    assert len(list(sentences(text))) > 5, "the page was read"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_long_sentence_in_a_page_would_be_seen(page: Path) -> None:
    assert len(hard(f"{page.read_text(encoding='utf-8')}\n\n{LONG}\n")) == 1


@pytest.mark.parametrize(
    "text",
    [
        LONG,
        f"Short. {LONG} Short.",
        f"It is short\n{LONG}",
        f"- one\n- {LONG}",
        f"- one\n\n  {LONG}",
        f"1. {LONG}",
        f"- one\n  - two\n    {LONG}",
        f"| a | {LONG} |",
        f"```\ncode\n```\n{LONG}",
        f"**Bold.** {LONG}",
        LONG.replace("word", "[word word](page.md)", 2).replace(" word", "", 2),
        "It stands in the place of the other.",
        "They are the same but for one.",
        "A rule of one's own.",
        "Reached is a region if a unit is in it.",
        "Read into the graph is only the loss.",
        "What looks into a loss may raise.",
        "- What leads nowhere counts as zero.",
    ],
)
def test_what_is_hard_to_read_is_found(text: str) -> None:
    assert len(hard(text)) == 1, text


@pytest.mark.parametrize(
    "text",
    [
        SHORT,
        f"{SHORT} {SHORT}",
        f"{SHORT}\n\n{SHORT}",
        f"{SHORT[:-1]}\n- {SHORT[:-1]}\n- {SHORT[:-1]}",
        f"| {SHORT[:-1]} | {SHORT[:-1]} |\n| {SHORT[:-1]} | b |",
        f"```\n{LONG}\n```",
        f"Formula:\n\n    {LONG}\n\nAnd on.",
        f"# {LONG}",
        f"<!-- {LONG} -->",
        f"`{LONG}` is a call.",
        f"[a link]({LONG}).",
        "# What was missed",
        "What is it, and who is wrong?",
        "A region is reached if some unit in it receives a nonzero cotangent.",
    ],
)
def test_what_is_easy_to_read_is_not(text: str) -> None:
    assert hard(text) == []
