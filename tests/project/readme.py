"""The README's examples and tables: `python -m tests.project.readme` prints the tables into it afresh."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from gradwitness_numpy.rules import RULES

__all__ = [
    "README",
    "agreement",
    "blocks",
    "example",
    "fault",
    "own_agreement",
    "own_fault",
    "own_op",
    "planted_sign",
    "printed",
    "table_in",
    "without_figures",
]

README = Path(__file__).parents[2] / "README.md"


def blocks(page: Path) -> list[str]:
    """The Python blocks of a page."""
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def example(number: int = 0) -> str:
    """A Python block of the README."""
    return blocks(README)[number]


def table_in(text: str, name: str) -> str:
    """What stands in the block after `<!-- table: name -->`."""
    found = re.search(rf"<!-- table: {name} -->\n```\n(.*?)```", text, re.DOTALL)
    assert found, name
    return found[1]


def printed(source: str) -> str:
    """What a program prints."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compile(source, str(README), "exec"), {})  # noqa: S102  # the README's own example
    return output.getvalue()


def agreement() -> str:
    """What the first example prints."""
    return printed(example())


def own_agreement() -> str:
    """What the second example prints: nothing, as its assertion holds."""
    return printed(example(1))


def own_op() -> str:
    """What the fifth example prints: nothing, as its assertion holds."""
    return printed(example(4))


def own_fault() -> str:
    """The table of the second example's report with a mean for a sum, which pytest shows below its assertion."""
    wrong = example(1).replace("g.sum(axis=0)", "g.mean(axis=0)")
    assert wrong != example(1)
    return printed(wrong.replace("assert gw.verify(", "report = gw.verify(") + "print(report.table())")


@contextlib.contextmanager
def planted_sign() -> Iterator[None]:
    """The sign of the hand-derived derivative of tanh flipped."""
    right = RULES["tanh"]
    RULES["tanh"] = replace(right, vjp=lambda g, step: [-c for c in right.vjp(g, step) if c is not None])
    try:
        yield
    finally:
        RULES["tanh"] = right


def fault() -> str:
    """What the example prints with that fault."""
    with planted_sign():
        return agreement()


def main() -> None:
    text = README.read_text(encoding="utf-8")
    for name, table in (("agreement", agreement()), ("fault", fault()), ("own fault", own_fault())):
        text = text.replace(
            f"<!-- table: {name} -->\n```\n{table_in(text, name)}```", f"<!-- table: {name} -->\n```\n{table}```"
        )
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()


def without_figures(table: str) -> str:
    """Floors differ from one CPU to the next."""
    return re.sub(r"[-\d][-+.\de]*", "#", re.sub(r" +", " ", table))
