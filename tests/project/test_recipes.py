"""The recipes of docs/modules.md run as they stand there, and each verifies something."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.project.readme import README, blocks, printed

RECIPES = blocks(README.parent / "docs" / "modules.md")
LIBRARIES = ["torch", "equinox", "flax.nnx", "flax.linen"]  # in the order of the page


def test_every_library_has_its_recipe() -> None:
    assert len(RECIPES) == len(LIBRARIES)
    assert all("\nassert gw.verify(" in recipe for recipe in RECIPES)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_recipe_holds(library: str) -> None:
    package, _, part = library.partition(".")
    recipe = RECIPES[LIBRARIES.index(library)]
    assert f"from {package} import {part}" in recipe or f"import {package}" in recipe
    pytest.importorskip(package, reason=f"{package} is not installed")
    np.random.seed(0)  # what a recipe draws is the same in every run
    torch.manual_seed(0)
    assert printed(recipe) == ""
