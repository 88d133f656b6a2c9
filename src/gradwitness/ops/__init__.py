"""The op vocabulary: signatures and shape rules, no arithmetic.

One module per family, in files of the same names in every adapter. `list(OPS)` is the vocabulary,
`BUILT_IN` the part of it that no user has defined.
Calling an op inside a traced loss records it; adapters compute it.
"""

import difflib
from typing import TYPE_CHECKING

# Declared in this order, from the elementary to the fused: the order of OPS and of every table.
# isort: off
from gradwitness.ops.elementwise import (
    abs,
    add,
    clip,
    cos,
    divide,
    elu,
    equal,
    erf,
    exp,
    expm1,
    gelu,
    greater,
    greater_equal,
    hardtanh,
    leaky_relu,
    less,
    less_equal,
    log,
    log1p,
    maximum,
    minimum,
    multiply,
    negative,
    not_equal,
    power,
    relu,
    sigmoid,
    silu,
    sin,
    softplus,
    sqrt,
    stop_gradient,
    subtract,
    tanh,
    where,
)
from gradwitness.ops.arrays import (
    broadcast_to,
    concatenate,
    index,
    one_hot,
    reshape,
    stack,
    take,
    transpose,
)
from gradwitness.ops.reductions import (
    max,
    mean,
    min,
    norm,
    std,
    sum,
    var,
)
from gradwitness.ops.softmax import (
    log_softmax,
    logsumexp,
    softmax,
)
from gradwitness.ops.contractions import (
    conv2d,
    linear,
    matmul,
)
from gradwitness.ops.linear_algebra import (
    cholesky,
    triangular_solve,
)
from gradwitness.ops.pooling import (
    avg_pool2d,
    max_pool2d,
)
from gradwitness.ops.normalizations import (
    batch_norm,
    layer_norm,
    rms_norm,
)
from gradwitness.ops.recurrent import (
    gru_cell,
    lstm_cell,
)
from gradwitness.ops.attention import (
    dropout,
    scaled_dot_product_attention,
)
from gradwitness.ops.losses import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    huber,
    mse,
)

# isort: on
from gradwitness.ops.value import Spec, Value
from gradwitness.ops.vocabulary import OPS, Op, find_op

__all__ = [
    "BUILT_IN",
    "OPS",
    "Op",
    "Spec",
    "Value",
    "abs",
    "add",
    "avg_pool2d",
    "batch_norm",
    "binary_cross_entropy_with_logits",
    "broadcast_to",
    "cholesky",
    "clip",
    "concatenate",
    "conv2d",
    "cos",
    "cross_entropy",
    "divide",
    "dropout",
    "elu",
    "equal",
    "erf",
    "exp",
    "expm1",
    "find_op",
    "gelu",
    "greater",
    "greater_equal",
    "gru_cell",
    "hardtanh",
    "huber",
    "index",
    "layer_norm",
    "leaky_relu",
    "less",
    "less_equal",
    "linear",
    "log",
    "log1p",
    "log_softmax",
    "logsumexp",
    "lstm_cell",
    "matmul",
    "max",
    "max_pool2d",
    "maximum",
    "mean",
    "min",
    "minimum",
    "mse",
    "multiply",
    "negative",
    "norm",
    "not_equal",
    "one_hot",
    "power",
    "relu",
    "reshape",
    "rms_norm",
    "scaled_dot_product_attention",
    "sigmoid",
    "silu",
    "sin",
    "softmax",
    "softplus",
    "sqrt",
    "stack",
    "std",
    "stop_gradient",
    "subtract",
    "sum",
    "take",
    "tanh",
    "transpose",
    "triangular_solve",
    "var",
    "where",
]

BUILT_IN = frozenset(OPS)  # what is there before users define ops of their own

if not TYPE_CHECKING:  # a type checker knows the names, and would take this for a promise that any is there

    def __getattr__(name: str) -> None:
        close = difflib.get_close_matches(name, OPS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "; `gradwitness list ops` shows what there is"
        raise AttributeError(f"gradwitness.ops has no op {name!r}{hint}")
