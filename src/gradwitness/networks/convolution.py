"""A convolutional network on the digit images."""

from __future__ import annotations

from typing import Any

from gradwitness import ops
from gradwitness.networks.data import CLASSES, digits
from gradwitness.networks.initial import affine, bias, dense, generator, weight
from gradwitness.ops import Value
from gradwitness.problem import Problem

__all__ = ["convnet"]

EPS = 1e-5


def convnet(*, batch: int = 5, channels: int = 4, seed: int = 0) -> Problem:
    """Convolution, batch norm, ReLU, max pool; wider convolution, tanh, average pool; linear; cross entropy.

    Behind the first convolution all background pixels of a channel are equal, so whole pooling
    windows tie: harmless, as the tied values are the same function of the parameters. The bias of
    that convolution has a true gradient of 0: batch norm subtracts it again.
    """
    rng = generator("convnet", seed)
    wide = channels + max(1, channels // 2)
    params = {
        "first": {"weight": weight(rng, channels, 1, 3, 3, gain=2.0), "bias": bias(rng, channels)},
        "norm": affine(rng, channels),
        "second": {"weight": weight(rng, wide, channels, 3, 2, gain=1.5), "bias": bias(rng, wide)},
        "output": dense(rng, wide * 2, CLASSES, gain=2.0),
    }
    images, labels = digits(batch)
    return Problem("convnet", _loss, params, {"images": images[:, None], "labels": labels})


def _loss(params: Any, batch: Any) -> Value:
    x = ops.conv2d(batch["images"], **params["first"], padding=1)  # (N, channels, 8, 8)
    x = ops.max_pool2d(ops.relu(ops.batch_norm(x, **params["norm"], eps=EPS)), kernel_size=2)  # (N, channels, 4, 4)
    x = ops.tanh(ops.conv2d(x, **params["second"], padding=(1, 0)))  # (N, wide, 4, 3)
    x = ops.avg_pool2d(x, kernel_size=(2, 3))  # (N, wide, 2, 1)
    logits = ops.linear(x.reshape(x.shape[0], -1), **params["output"])
    return ops.cross_entropy(logits, batch["labels"], reduction="mean")
