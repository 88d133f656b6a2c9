"""The pages on the house and on its verdicts name what is there: modules, layers, and the checks in their order."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from gradwitness.verdict.checks import CHECKS

ROOT = Path(__file__).parents[2]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
VERDICT = (ROOT / "docs" / "verdict.md").read_text(encoding="utf-8")
CORE = ROOT / "src" / "gradwitness"


def house(text: str) -> str:
    """The list of files."""
    found = re.search(r"## The house\n\n```\n(.*?)```", text, re.DOTALL)
    assert found
    return found[1]


def unlisted(text: str) -> set[str]:
    """Modules of the core that the list leaves out, but for those of packages whose every file is of one kind."""
    modules = {p.name for p in CORE.rglob("*.py") if p.name != "__init__.py" and "networks" not in p.parts}
    return modules - set(re.findall(r"\w+\.py", house(text)))


def gone(text: str) -> set[str]:
    """What is listed, and is nowhere."""
    there = {p.name for folder in ("src", "backends") for p in (ROOT / folder).rglob("*.py")}
    return set(re.findall(r"\w+\.py", house(text))) - there


def checks_in(text: str) -> list[str]:
    """The names in the first column of the table of checks."""
    return re.findall(r"^\| `(_\w+)` \|", text, re.MULTILINE)


def test_the_house_lists_every_module_of_the_core_and_none_that_is_gone() -> None:
    assert unlisted(ARCHITECTURE) == set()
    assert gone(ARCHITECTURE) == set()


def test_a_module_that_is_not_listed_or_gone_would_be_seen() -> None:
    assert unlisted(ARCHITECTURE.replace("sight.py", "testimony.py")) == {"sight.py"}
    assert gone(ARCHITECTURE.replace("sight.py", "testimony.py")) == {"testimony.py"}


def test_the_layers_are_those_that_lint_holds() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    layers = next(c["layers"] for c in tools["importlinter"]["contracts"] if c.get("exhaustive"))
    assert "\n```\n" + "\n".join(layers) + "\n```\n" in ARCHITECTURE
    assert not any(":" in layer for layer in layers), "an import circle would need one"


def test_the_checks_are_told_in_their_order() -> None:
    assert checks_in(VERDICT) == [check.__name__ for check in CHECKS]


def test_another_order_would_be_seen() -> None:
    swapped = VERDICT.replace("| `_refuted` |", "| `_distant` |", 1)
    assert swapped != VERDICT
    assert checks_in(swapped) != [check.__name__ for check in CHECKS]
