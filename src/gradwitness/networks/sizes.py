"""The zoo at other sizes than its own, to be timed: of each network, what is larger."""

from __future__ import annotations

from collections.abc import Mapping

from gradwitness.errors import UnknownName
from gradwitness.networks import NETWORKS

__all__ = ["NAMES", "SIZES", "sizes"]

NAMES = ("small", "medium", "large")
SIZES: Mapping[str, Mapping[str, Mapping[str, int]]] = {
    "mlp": {
        "medium": {"batch": 128, "features": 64, "width": 256},
        "large": {"batch": 512, "features": 64, "width": 1024},
    },
    "convnet": {"medium": {"batch": 16, "channels": 8}, "large": {"batch": 64, "channels": 16}},
    "lstm": {
        "medium": {"batch": 16, "time": 24, "embedding": 32, "hidden": 64},
        "large": {"batch": 32, "time": 48, "embedding": 64, "hidden": 256},
    },
    "transformer": {
        "medium": {"batch": 16, "time": 32, "width": 64, "heads": 4, "depth": 16, "hidden": 128, "blocks": 1},
        "large": {"batch": 16, "time": 64, "width": 128, "heads": 4, "depth": 32, "hidden": 512, "blocks": 4},
    },
}


def sizes(network: str, size: str) -> Mapping[str, int]:
    """What to build a network of this size with: "small" is the zoo's own, whose arithmetic takes microseconds, so that
    what is timed is the framework's overhead.

    Raises UnknownName, listing what there is, for a network or size that does not exist.
    """
    if network not in NETWORKS:
        raise UnknownName("network", network, NETWORKS)
    known = {"small": {}, **SIZES.get(network, {})}
    if size not in known:
        raise UnknownName(f"size of {network}", size, known)
    return known[size]
