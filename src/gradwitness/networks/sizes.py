"""The zoo at other sizes than its own, to be timed: of each network, what is larger."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace

from gradwitness.errors import UnknownName
from gradwitness.networks import NETWORKS, network
from gradwitness.problem import Problem

__all__ = ["AXES", "NAMES", "SIZES", "grown", "sized", "sizes", "sizes_of"]

NAMES = ("small", "medium", "large")
SIZES: Mapping[str, Mapping[str, Mapping[str, int]]] = {
    "mlp": {
        "medium": {"batch": 128, "features": 64, "width": 256},
        "large": {"batch": 512, "features": 64, "width": 1024},
    },
    "convnet": {"medium": {"batch": 16, "channels": 8}, "large": {"batch": 64, "channels": 16}},
    "lstm": {
        "medium": {"batch": 16, "time": 24, "embedding": 32, "hidden": 64},
        "large": {"batch": 64, "time": 24, "embedding": 64, "hidden": 256},
    },
    "transformer": {
        "medium": {"batch": 16, "time": 32, "width": 64, "heads": 4, "depth": 16, "hidden": 128, "blocks": 1},
        "large": {"batch": 16, "time": 64, "width": 128, "heads": 4, "depth": 32, "hidden": 512, "blocks": 4},
    },
}


AXES: Mapping[str, Mapping[str, str]] = {  # what each of them is called where a network is built
    "width": {"mlp": "width", "convnet": "channels", "lstm": "hidden", "gru": "hidden", "transformer": "width"},
    "depth": {"mlp": "depth", "transformer": "blocks"},
    "batch": dict.fromkeys((name for name in NETWORKS if name != "article"), "batch"),
    "sequence": {"lstm": "time", "gru": "time", "transformer": "time"},
}
MULTIPLES = (1, 2, 4, 8)  # of the size from which it grows


def grown(name: str, along: str, size: str, *, seed: int = 0) -> dict[int, Problem]:
    """A network at several sizes, by that which grows, from one of its `sizes` on.

    Raises UnknownName for a network, an axis or a size that does not exist, or an axis along which it does not grow.
    """
    if along not in AXES:
        raise UnknownName("axis of growth", along, AXES)
    given = sizes(name, size)
    if name not in AXES[along]:
        raise UnknownName(f"network that grows in {along}", name, AXES[along])
    key = AXES[along][name]
    first = given.get(key, inspect.signature(NETWORKS[name]).parameters[key].default)
    found = {multiple * first: {**given, key: multiple * first} for multiple in MULTIPLES}
    return {
        extent: replace(network(name, seed=seed, **kwargs), name=f"{name}-{size}-{along}-{extent}")
        for extent, kwargs in found.items()
    }


def sizes_of(name: str) -> dict[str, Mapping[str, int]]:
    """The sizes that a network has, and what to build it with for each. "small" is the zoo's own, whose arithmetic
    takes microseconds, so that what is timed is the framework's overhead.

    Raises UnknownName, listing what there is, for a network that does not exist.
    """
    if name not in NETWORKS:
        raise UnknownName("network", name, NETWORKS)
    return {"small": {}, **SIZES.get(name, {})}


def sizes(name: str, size: str) -> Mapping[str, int]:
    """What to build a network of this size with. Raises UnknownName for a network or size that does not exist."""
    known = sizes_of(name)
    if size not in known:
        raise UnknownName(f"size of {name}", size, known)
    return known[size]


def sized(name: str, size: str, *, seed: int = 0) -> Problem:
    """The network of this size, named after both. Raises as `sizes` does."""
    return replace(network(name, seed=seed, **sizes(name, size)), name=f"{name}-{size}")
