"""A page as a strict parser sees it, and what every page must be: whole, by itself, and without a script."""

from __future__ import annotations

import re
from collections import Counter
from xml.etree.ElementTree import Element

import html5lib

__all__ = ["checked", "text_of"]

REFERENCES = (
    "href",
    "src",
    "srcset",
    "action",
    "data",
    "poster",
    "background",
    "cite",
    "{http://www.w3.org/1999/xlink}href",
)


def checked(page: str) -> Element:
    """The root of the page. Raises html5lib's ParseError for what a browser would mend, AssertionError for the rest."""
    root: Element = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page)
    elements = [element for element in root.iter() if isinstance(element.tag, str)]
    ids = Counter(element.get("id") for element in elements if element.get("id"))
    assert [name for name, count in ids.items() if count > 1] == []
    assert [element.tag for element in elements if element.tag.rpartition("}")[2] == "script"] == []
    for element in elements:
        for key, value in element.attrib.items():
            assert not key.startswith("on"), f"{element.tag} {key}"
            if key in REFERENCES:
                assert value.startswith("#"), f"{element.tag} {key}={value}"
                assert value[1:] in ids, f"{element.tag} {key}={value} leads nowhere"
            _expect_nothing_fetched(value, ids)
        if element.tag.rpartition("}")[2] == "style":
            _expect_nothing_fetched(element.text or "", ids)
    return root


def _expect_nothing_fetched(style: str, ids: Counter[str | None]) -> None:
    assert "@import" not in style
    for name in re.findall(r"url\(([^)]*)\)", style):
        assert name.startswith("#"), name
        assert name[1:] in ids, name


def text_of(element: Element) -> str:
    """Its text as a reader sees it, in one line."""
    return " ".join("".join(element.itertext()).split())
