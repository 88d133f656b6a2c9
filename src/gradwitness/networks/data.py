"""The data that the zoo runs on: handwritten digits and a sonnet, read when first asked for."""

from __future__ import annotations

import functools
from importlib import resources

import numpy as np

from gradwitness.dtypes import Array

__all__ = ["CLASSES", "characters", "digits", "vocabulary_size"]


CLASSES = 10  # digits 0 to 9
_FOLDER = resources.files("gradwitness.networks") / "data"


def digits(count: int) -> tuple[Array, Array]:
    """`count` images (count, 8, 8) of floats in [0, 1], multiples of 1/16, and their labels (count,).

    There are 64; a larger batch goes round again. Most of a border is background, exactly 0.
    """
    images, labels = _digits()
    which = np.arange(count) % len(labels)
    return images[which] / 16.0, labels[which].astype(np.int64)


def characters(batch: int, length: int, offset: int = 0) -> Array:
    """Consecutive stretches of Sonnet 18 as integers (batch, length) below `vocabulary_size()`.

    The first stretch begins at character `offset`; the text goes round at its end.
    """
    text = _text()
    where = offset + np.arange(batch * length).reshape(batch, length)
    return text[where % len(text)]


def vocabulary_size() -> int:
    """How many different characters the sonnet has, the line break included."""
    return int(_text().max()) + 1


@functools.cache
def _digits() -> tuple[Array, Array]:
    with (_FOLDER / "digits.npz").open("rb") as file, np.load(file) as arrays:
        return arrays["images"], arrays["labels"]


@functools.cache
def _text() -> Array:
    """The sonnet, each character as its position among those that occur, in order of code point."""
    points = np.frombuffer((_FOLDER / "sonnet.txt").read_text("utf-8").encode("utf-32-le"), dtype="<u4")
    return np.unique(points, return_inverse=True)[1].astype(np.int64)
