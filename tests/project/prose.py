"""Sentences of the project's pages that are hard to read: `python -m tests.project.prose [WORDS]` lists them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["LIMIT", "PAGES", "TURNS", "hard", "sentences"]

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

LIMIT = 40
"""The most words of a sentence."""

TURNS = {
    r"\bin (the )?place of\b": "instead of",
    r"\bbut for\b": "except",
    r"\bone's own\b": "your own",
    r"\bas ever\b": "as always, or leave it out",
    r"\bfor want of\b": "as there is no, because it lacks",
    r"\bforetold\b": "predicted",
    r"\bwho(so)?ever\b": "name them",
    r"^\W*(Reached|Seen|Meant|Read|Held|Judged|Perturbed|Exact|Caught)\b[^.:?]* (is|are) (a|an|the|only|every)\b": (
        "the subject first: a region is reached if ..."
    ),
    r"^\W*What (?!(is|are|does|do|can|was)\b)[^?]*$": "name the thing: no sentence begins with a headless relative",
}
"""Turns that read as translated, as regular expressions for a sentence, and how to write instead."""

FENCED = re.compile(r"^( *)```.*?^\1```", re.DOTALL | re.MULTILINE)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
MARKER = re.compile(r"\s*([-*]|\d+\.)\s+|>\s*")
CELLS = re.compile(r"(?<!\\)\|")
CODE, LINK = re.compile(r"(`+)[^`]+\1"), re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
ABBREVIATED = re.compile(r"\b(e\.g|i\.e|vs|cf)\.")
END = re.compile(r"(?<=[.!?])[\"')*]*\s+")


def blocks(page: str) -> Iterator[str]:
    """Paragraphs, items of lists and cells of tables. No code and no headings, which are not sentences."""
    paragraph: list[str] = []
    for line in [*COMMENT.sub("", FENCED.sub("", page)).splitlines(), ""]:
        marker, is_row = MARKER.match(line), line.lstrip().startswith("|")
        is_code = line.startswith("    ") and not paragraph
        apart = not line.strip() or is_row or is_code or line.startswith("#")
        if paragraph and (apart or marker):
            yield " ".join(paragraph)
            paragraph = []
        if is_row:
            yield from CELLS.split(line)
        elif not apart:
            paragraph.append(line[marker.end() if marker else 0 :].strip())


def plain(block: str) -> str:
    """A block as it is read: what stands in backticks is one word, and a link is its text."""
    return ABBREVIATED.sub("abbreviated", LINK.sub(r"\1", CODE.sub("`code`", block)))


def sentences(page: str) -> Iterator[str]:
    """The sentences of a page in Markdown, each on one line."""
    for block in blocks(page):
        yield from END.split(plain(block).strip())


def words(sentence: str) -> int:
    """How many: numbers count, signs alone do not."""
    return sum(any(c.isalnum() for c in word) for word in sentence.split())


def hard(page: str, limit: int = LIMIT) -> list[str]:
    """What is wrong with which sentence, a line each."""
    found = []
    for sentence in sentences(page):
        if words(sentence) > limit:
            found.append(f"{words(sentence)} words: {sentence}")
        found += [f"write {better!r}: {sentence}" for turn, better in TURNS.items() if re.search(turn, sentence)]
    return found


def main(limit: int) -> None:
    for page in PAGES:
        for line in hard(page.read_text(encoding="utf-8"), limit):
            print(f"{page.relative_to(ROOT)}: {line}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else LIMIT)
