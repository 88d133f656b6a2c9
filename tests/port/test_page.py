"""docs/ports.md tells the truth: its example prints what stands there, and its tables list what is tried."""

from __future__ import annotations

import numpy as np
import torch

from gradwitness.port.layouts import LAYOUTS
from gradwitness_torch.conventions import CONVENTIONS
from tests.project.readme import README, blocks, printed, table_in

PAGE = README.parent / "docs" / "ports.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_the_example_prints_what_stands_there() -> None:
    np.random.seed(0)
    torch.manual_seed(0)
    (source,) = blocks(PAGE)
    said = printed(source)
    assert all(line in said for line in table_in(TEXT, "port").splitlines())


def test_the_page_lists_every_layout() -> None:
    assert [layout.name for layout in LAYOUTS if f"`{layout.name}`" not in TEXT] == []


def test_the_page_lists_every_convention() -> None:
    kinds = {convention.name.split()[-1] for convention in CONVENTIONS}
    assert kinds == {"gelu", "eps", "ddof", "variance", "momentum", "flattening", "loss"}
    assert all(word in TEXT for word in (*(kinds - {"eps"}), "epsilon"))
