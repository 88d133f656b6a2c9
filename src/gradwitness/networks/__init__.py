"""The zoo: problems to try implementations on, by name. Data are read when a network is built."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from gradwitness.errors import UnknownName
from gradwitness.networks.attention import transformer
from gradwitness.networks.convolution import convnet
from gradwitness.networks.metric import siamese
from gradwitness.networks.mixture import gaussian_mixture
from gradwitness.networks.normalized import batchnorm_mlp, layernorm_mlp, residual_mlp
from gradwitness.networks.perceptron import deep_relu, deep_sigmoid, mlp, softmax_classifier
from gradwitness.networks.recurrent import gru, lstm
from gradwitness.networks.worked_example import PUBLISHED as ARTICLE_PUBLISHED
from gradwitness.networks.worked_example import article
from gradwitness.problem import Problem
from gradwitness.published import Printed

__all__ = ["NETWORKS", "PUBLISHED", "network"]

NETWORKS: dict[str, Callable[..., Problem]] = {
    "article": article,
    "mlp": mlp,
    "softmax_classifier": softmax_classifier,
    "deep_sigmoid": deep_sigmoid,
    "deep_relu": deep_relu,
    "residual_mlp": residual_mlp,
    "batchnorm_mlp": batchnorm_mlp,
    "layernorm_mlp": layernorm_mlp,
    "convnet": convnet,
    "lstm": lstm,
    "gru": gru,
    "transformer": transformer,
    "siamese": siamese,
    "gaussian_mixture": gaussian_mixture,
}

PUBLISHED: dict[str, tuple[Printed, ...]] = {"article": ARTICLE_PUBLISHED}  # by network


def network(name: str, **sizes: Any) -> Problem:
    """The network of that name, of these sizes (`seed` among them).

    Raises UnknownName, listing what there is, for a network or a size that does not exist.
    """
    if name not in NETWORKS:
        raise UnknownName("network", name, NETWORKS)
    known = inspect.signature(NETWORKS[name]).parameters
    for size in sizes:
        if size not in known:
            raise UnknownName(f"size of {name}", size, known)
    return NETWORKS[name](**sizes)
