"""The README's example and tables: `python -m tests.project.readme` prints the tables into it afresh."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from gradwitness_numpy.rules import RULES

__all__ = ["README", "agreement", "example", "fault", "planted_sign", "table_in"]

README = Path(__file__).parents[2] / "README.md"


def example() -> str:
    """The first Python block."""
    found = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return found[1]


def table_in(text: str, name: str) -> str:
    """What stands in the block after `<!-- table: name -->`."""
    found = re.search(rf"<!-- table: {name} -->\n```\n(.*?)```", text, re.DOTALL)
    assert found, name
    return found[1]


def agreement() -> str:
    """What the example prints."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compile(example(), str(README), "exec"), {})  # noqa: S102  # the README's own example
    return output.getvalue()


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
    for name, printed in (("agreement", agreement()), ("fault", fault())):
        text = text.replace(
            f"<!-- table: {name} -->\n```\n{table_in(text, name)}```", f"<!-- table: {name} -->\n```\n{printed}```"
        )
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
