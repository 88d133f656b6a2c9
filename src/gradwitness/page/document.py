"""A page as text: sections, each filled into a template of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradwitness.errors import GradwitnessError
from gradwitness.page.text import printable

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["Page", "Section", "expect_installed"]

HERE = Path(__file__).parent
MODULES = ("jinja2", "matplotlib")
INSTALL = 'pip install "gradwitness[html]"'


def expect_installed(what: str) -> None:
    """Raise GradwitnessError, with the install command, where a module is missing that pages are made with.

    what: who asks for a page, for the message.
    """
    missing = [module for module in MODULES if find_spec(module) is None]
    if missing:
        raise GradwitnessError(f"{what} needs {' and '.join(missing)}, which is not installed: {INSTALL}")


@dataclass(frozen=True)
class Section:
    """A part of a page: its id, its heading, and what is shown by which template. lead: a sentence before it."""

    name: str
    title: str
    template: str
    shown: Any
    lead: str = ""


@dataclass(frozen=True)
class Page:
    """Everything that is on one page. Text in it is text: nothing of it is taken for markup, but pictures.

    title: of the window. mark, outcome, summary: the first thing to see: a symbol, a word or two, a sentence.
    kind: how good that is, a class of style.css: "good", "bad".
    counts: what it adds up to, as (kind, symbol, number, word).
    made: how the page was made, such as the command, by what is said of it.
    """

    title: str
    kind: str
    mark: str
    outcome: str
    summary: str
    sections: Sequence[Section]
    counts: Sequence[tuple[str, str, int, str]] = ()
    made: Mapping[str, str] = field(default_factory=dict)

    def html(self) -> str:
        """The page, with style and pictures inside."""
        from markupsafe import Markup

        style = Markup((HERE / "style.css").read_text(encoding="utf-8"))
        return _templates().get_template("page.html").render(page=self, style=style)


@cache
def _templates() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        finalize=_printable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _printable(value: Any) -> Any:
    is_markup = hasattr(value, "__html__")  # and made of what was printable
    return printable(value) if isinstance(value, str) and not is_markup else value
