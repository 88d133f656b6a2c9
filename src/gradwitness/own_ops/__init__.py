"""Ops of a user's own: added to the vocabulary from any file, held against the others at once.

    def swish(x, *, beta=1.0):  # the shape rule: Specs of the arrays to that of the result
        return x

    swish = gw.define_op(swish, rounding="rounded", samples=[...], numpy=(forward, vjp), torch=function)
    gw.verify_op(swish)

The names below are all that a definition takes.
"""

from gradwitness.ops import Spec
from gradwitness.ops.samples import boolean, labels, positive, real, sample
from gradwitness.ops.vocabulary import Bend, Regions, Rounding, bends, tails
from gradwitness.own_ops.define import define_op, forget_op, verify_op

__all__ = [
    "Bend",
    "Regions",
    "Rounding",
    "Spec",
    "bends",
    "boolean",
    "define_op",
    "forget_op",
    "labels",
    "positive",
    "real",
    "sample",
    "tails",
    "verify_op",
]
