"""Pictures for a page: what matplotlib draws, as SVG in the page's own colours and type.

Text stays text (svg.fonttype "none"): it is smaller than paths, can be searched, copied and read aloud, and takes the
page's font. Colours are stand-ins while matplotlib draws, and variables of style.css afterwards, so that a picture is
dark where the page is.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from itertools import cycle
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from gradwitness.page.text import printable

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

__all__ = [
    "BAD",
    "INK",
    "MUTED",
    "PAPER",
    "RULE",
    "WIDTH",
    "Picture",
    "Pictures",
    "Series",
    "drawing",
    "inline",
    "label",
    "panel",
    "powers_of_ten",
    "series",
]

WIDTH = 360.0  # as wide as a phone, so that text has its size there
INCH = 72.0  # units of an SVG

INK, MUTED, RULE, PAPER, BAD = "#010101", "#020202", "#030303", "#040404", "#050505"
COLORS = tuple(f"#0a0a{number:02x}" for number in range(1, 9))  # of series
MARKERS = "osD^vPX"  # seven: 56 series differ in that or in their color
SYMBOLS = dict(zip(MARKERS + "x", "○□◇△▽✚✖✕", strict=True))  # the same in text
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    RULE: "--rule",
    PAPER: "--paper",
    BAD: "--bad",
    **{color: f"--series-{number}" for number, color in enumerate(COLORS, start=1)},
}
STYLE: dict[Any, Any] = {
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": MUTED,
    "axes.titlesize": "medium",
    "font.size": 12,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.markersize": 5,
    "svg.fonttype": "none",
    "svg.hashsalt": "gradwitness",
    "text.color": INK,
    "text.parse_math": False,  # a label may hold dollars
    "xtick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.color": RULE,
    "ytick.labelcolor": INK,
}
NOTHING = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # is said of how it was made: it is the same each time
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Picture:
    """drawn: what `inline` gives. caption: how to read it."""

    title: str
    drawn: Markup
    caption: str


@contextmanager
def drawing() -> Iterator[None]:
    """Within it, pictures look alike, whatever the user has set; matplotlib is left as it was."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of glyphs that its fonts lack and the reader's have
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def panel(height: float, lines: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """An empty picture of this height, in units of `WIDTH`, and its panels line by line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / INCH, height / INCH), layout="constrained")
    return figure, list(figure.subplots(lines, columns, squeeze=False).flat)


@dataclass(frozen=True)
class Series:
    """How one of several looks: `marker` and `color` as matplotlib is told, `symbol` and `variable` as a page shows."""

    name: str
    marker: str
    color: str

    @property
    def symbol(self) -> str:
        return SYMBOLS[self.marker]

    @property
    def variable(self) -> str:
        return VARIABLES[self.color]


@dataclass(frozen=True)
class Pictures:
    """Several with one legend."""

    series: Sequence[Series]
    pictures: Sequence[Picture]


def series(names: Iterable[str]) -> dict[str, Series]:
    """One for each name."""
    looks = zip(dict.fromkeys(names), cycle(MARKERS), cycle(COLORS), strict=False)
    return {name: Series(name, marker, color) for name, marker, color in looks}


def label(text: str, longest: int = 20) -> str:
    """A name in a picture: one line of so many characters, the end of a long name, which tells it from others."""
    line = " ".join(printable(text).split())
    return line if len(line) <= longest else "…" + line[1 - longest :]


def powers_of_ten(axis: Axis) -> None:
    """A logarithmic axis with a few ticks, at powers of ten, and none between them."""
    from matplotlib.ticker import LogLocator, NullLocator

    axis.set_major_locator(LogLocator(numticks=7))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(_power_of_ten)


def _power_of_ten(value: float, place: float = 0) -> str:
    return "10" + str(round(math.log10(value))).translate(SUPERSCRIPTS)


def inline(figure: Figure, name: str, text: str) -> Markup:
    """The picture as an element of a page. name: what its ids begin with; text: what it shows, in words."""
    from markupsafe import Markup

    stream = StringIO()
    figure.savefig(
        stream, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
    )
    root = ElementTree.fromstring(stream.getvalue())
    _plain(root)
    _rename(root, name)
    _unwrap(root)
    view = root.attrib["viewBox"]
    root.attrib.clear()
    root.attrib |= {"viewBox": view, "role": "img", "aria-label": printable(text)}
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # whose text ElementTree escaped


# What is left of matplotlib's SVG


def _plain(root: ElementTree.Element) -> None:
    """Without namespaces, which HTML does not need, fonts, needless digits, and what cannot be seen."""
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
        for key in element.attrib.keys() & {"d", "x", "y", "width", "height", "viewBox", "transform"}:
            element.attrib[key] = _rounded(" ".join(element.attrib[key].split()))
        if element.get("transform", "").startswith("rotate(-0 "):
            del element.attrib["transform"]
        if "style" in element.attrib:
            element.attrib["style"] = _style(element.attrib["style"])
        element.text, element.tail = (element.text or "").strip() or None, None
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in ("metadata", "style") or (child.tag == "path" and child.get("style") == "fill: none"):
                parent.remove(child)


def _rounded(text: str) -> str:
    return re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]):.1f}".removesuffix(".0"), text)


def _style(text: str) -> str:
    """In variables for colours, and the page's own font."""
    parts = dict(part.split(": ", 1) for part in text.split("; ") if ": " in part)
    parts.pop("font-family", None)
    if font := parts.pop("font", ""):  # how matplotlib before 3.9 has it: weight, size and family
        *weight, parts["font-size"] = font.partition(" '")[0].split()
        parts |= {"font-weight": weight[0]} if weight else {}
    return "; ".join(f"{key}: {f'var({VARIABLES[it]})' if it in VARIABLES else it}" for key, it in parts.items())


def _rename(root: ElementTree.Element, name: str) -> None:
    """Ids that something refers to begin with the name; there are no others."""
    text = ElementTree.tostring(root, encoding="unicode")
    used = set(re.findall(r"(?:url\(|href=\")#(\w+)", text))
    new = {old: f"{name}-{number}" for number, old in enumerate(sorted(used, key=text.index))}
    for element in root.iter():
        if (old := element.attrib.pop("id", "")) in new:
            element.set("id", new[old])
        for key, value in element.attrib.items():
            if key == "href":
                element.set(key, f"#{new[value[1:]]}")
            elif value.startswith("url(#"):
                element.set(key, f"url(#{new[value[5:-1]]})")


def _unwrap(parent: ElementTree.Element) -> None:
    """Without groups that say nothing; what all of a group say alike, the group says."""
    children: list[ElementTree.Element] = []
    for child in parent:
        _unwrap(child)
        styles = {one.get("style") for one in child} if child.tag == "g" and len(child) > 1 else set()
        if len(styles) == 1 and None not in styles and not child.get("style"):
            child.set("style", str(styles.pop()))
            for one in child:
                del one.attrib["style"]
        children += list(child) if child.tag == "g" and not child.attrib else [child]
    parent[:] = children
