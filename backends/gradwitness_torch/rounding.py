"""Rounding errors put on every result of torch in float64: forward and backward, in its own functions and the user's.

Monte Carlo arithmetic (Parker, "Monte Carlo Arithmetic", UCLA CSD-970002, 1997) below autograd, where all that torch
computes arrives as ops of `torch.ops.aten`. How each rounds is a row of the tables here; a fused one is taken apart.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import torch
from torch._decomp import decomposition_table
from torch._ops import OpOverload
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from gradwitness.arithmetic import RoundingErrors
from gradwitness.errors import NarrowerError, UnsupportedError
from gradwitness_torch.decisions import decided_as, decides, decides_in, decision
from gradwitness_torch.normals import Normals
from gradwitness_torch.quiet import quiet

__all__ = ["Rounding"]

EXACT, ROUNDED, FUSED, OPAQUE = "exact", "rounded", "fused", "opaque"
SUMS = SUM, MATMUL, CONVOLUTION = "sum", "matmul", "conv2d"  # by the names that `Arithmetic.sums_of` knows

# How an op of aten rounds, by its name or by name and overload; `name_`, in place, rounds as `name` does. Without a row
# a view is exact, a pointwise op is rounded once, and any other is taken apart, if torch knows how.
KINDS: dict[str, str] = {
    EXACT: """
        abs adaptive_max_pool2d adaptive_max_pool3d amax amin aminmax arange bernoulli cat ceil clamp clamp_max
        clamp_min clone constant_pad_nd copy copysign cummax cummin diagonal_backward diagonal_scatter embedding
        empty empty_like empty_permuted empty_strided exponential eye fill flip floor fmax fmin fmod frac full
        full_like gather geometric hardshrink hardshrink_backward hardtanh hardtanh_backward heaviside index
        index_copy index_fill index_select kthvalue lift lift_fresh linspace log_normal masked_fill
        masked_scatter masked_scatter_backward masked_select max max_pool2d_with_indices max_pool3d_with_indices
        maximum median min minimum mode nan_to_num nanmedian neg new_empty new_empty_strided new_full new_ones
        new_zeros normal normal_functional ones ones_like poisson rand rand_like randint_like randn randn_like
        random reflection_pad1d reflection_pad2d reflection_pad3d relu relu6 repeat replication_pad1d
        replication_pad2d replication_pad3d resize resize_as roll round scalar_tensor scatter select_backward
        select_scatter set sgn sign slice_backward slice_scatter sort split_with_sizes_copy stack take threshold
        threshold_backward topk tril triu trunc unfold_copy uniform unique_consecutive unsafe_split
        unsafe_split_with_sizes upsample_nearest1d upsample_nearest2d upsample_nearest3d where zero zeros
        zeros_like _efficientzerotensor _pin_memory _reshape_alias _to_copy _unique2 _unsafe_index _unsafe_view
        _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
    """,
    ROUNDED: """
        hardsigmoid_backward native_dropout native_dropout_backward rrelu_with_noise softshrink_backward
        _adaptive_avg_pool2d_backward _adaptive_avg_pool3d_backward
    """,
    SUM: """
        adaptive_max_pool2d_backward adaptive_max_pool3d_backward avg_pool2d avg_pool2d_backward avg_pool3d
        avg_pool3d_backward col2im cumsum embedding_dense_backward index_add index_put
        max_pool2d_with_indices_backward max_pool3d_with_indices_backward put reflection_pad1d_backward
        reflection_pad2d_backward reflection_pad3d_backward replication_pad1d_backward
        replication_pad2d_backward replication_pad3d_backward scatter.reduce scatter.value_reduce scatter_add
        scatter_reduce sum trace unfold_backward upsample_bilinear2d_backward upsample_linear1d_backward
        upsample_nearest1d_backward upsample_nearest2d_backward upsample_nearest3d_backward
        upsample_trilinear3d_backward _embedding_bag _embedding_bag_backward _embedding_bag_dense_backward
        _embedding_bag_forward_only _index_put_impl _unsafe_index_put _upsample_nearest_exact1d_backward
        _upsample_nearest_exact2d_backward _upsample_nearest_exact3d_backward
    """,
    MATMUL: """
        addbmm addmm addmv baddbmm bmm dot mm mv vdot _embedding_bag_per_sample_weights_backward _trilinear
    """,
    CONVOLUTION: "convolution convolution_backward",
    FUSED: """
        addcdiv addcmul celu elu gelu gelu_backward lerp logit logit_backward mean mish selu sigmoid_backward silu
        silu_backward sinc softplus tanh_backward var var_mean
    """,
}
ROWS = {name: kind for kind, names in KINDS.items() for name in names.split()}

ACCUMULATING = frozenset(
    {"index_put", "put", "_index_put_impl", "_unsafe_index_put"}
)  # if they are told to, else exact
AVERAGING = frozenset({"avg_pool2d", "avg_pool2d_backward", "avg_pool3d", "avg_pool3d_backward"})

# Correctly rounded (IEEE 754-2019, 5.4.1): a result that the dtype holds has no error. And powers, which are products.
CORRECTLY_ROUNDED = frozenset({"add", "div", "mul", "pow", "rsub", "sqrt", "square", "sub"})
NARROW = {2.0**-8: torch.bfloat16, 2.0**-11: torch.float16}  # by unit roundoff; float32 for float32 and float64
LARGEST_TERM = 2.0**24  # of whole numbers whose sums are taken to be exact
NEGLIGIBLE = 2.0**10  # by how much roundoff |y| exceeds the smallest number for it not to count
UNKNOWN = object()
Deviation = torch.Tensor | str | None  # how large errors are; EXACT: nothing; None: roundoff |y|, as most are
Step = tuple[OpOverload, Any, Any]  # an op, the shape of what it was called with, and what is kept of the call

# What leaves torch for another library, or for a kernel that torch does not see.
EXITS = frozenset({torch.Tensor.numpy, torch.Tensor.__array__, torch.Tensor.__dlpack__, torch.Tensor.data_ptr})


class Rounding(TorchDispatchMode):
    """While `everywhere()` lasts, each result y of an op, in float64, becomes y + d z: z is standard normal, d as large
    as `errors` says (`RoundingErrors`), and 0 for an infinity and for what has no rounding error.

    After a run in `recording()`, which puts no errors on anything, other runs take over from it how large the errors
    are, and what it decided (`decisions`), as long as they call the same ops in the same order.

    The normal numbers are its own, for each device, and `seed` starts them. Raises
    UnsupportedError, by name, for an op that it has no rule for, and for one that makes float64 narrower.
    """

    supports_higher_order_operators = True  # such as flex_attention: they arrive here, and are refused

    def __init__(self, errors: RoundingErrors, seed: Sequence[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self._errors = errors
        self._narrow = NARROW.get(errors.roundoff / errors.amplification, torch.float32)
        self._seed = seed
        self._normals: dict[torch.device, Normals] = {}
        self._recorded: list[Step] = []
        self._steps: Iterator[Step] | None = None  # those to come, while the run does as the recorded one did
        self._is_recording = False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here: torch need not import its compiler to leave this alone

    @contextmanager
    def everywhere(self) -> Iterator[None]:
        """Active, and with it whatever makes torch run op by op: nothing compiled, attention as it is defined, and no
        cudnn, whose recurrent layers are one op each."""
        self.begin()
        with ExitStack() as stack:
            stack.enter_context(quiet())  # taking the first op apart imports half of torch
            if "torch._dynamo" in sys.modules:  # else nothing can have been compiled
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
            stack.enter_context(_Sealed())
            stack.enter_context(self)
            yield

    def begin(self) -> None:
        """From here on it is another run."""
        self._steps = iter(self._recorded) if self._recorded and not self._is_recording else None

    @contextmanager
    def recording(self) -> Iterator[None]:
        """`everywhere()` without errors."""
        self._recorded, self._is_recording = [], True
        try:
            with self.everywhere():
                yield
        finally:
            self._is_recording = False

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunction():
            kind, among = _rule(op)
            if kind == SUM and _copies(op, args, kwargs):
                kind = EXACT
            if kind == FUSED and (definition := _definition(op)):
                with self:
                    return definition(*args, **kwargs)
            if kind in SUMS:
                return self._summed(kind, op, args, kwargs)
            result = op(*args, **kwargs)
            if kind == OPAQUE or self._steps is None:
                _expect_known(op, kind, result, args, kwargs)
            if decides(among, args, kwargs, result):
                return self._decided(op, args, kwargs, result)
            if kind == ROUNDED:
                self._rounded(op, args, result)
            return result

    def _rounded(self, op: OpOverload, args: Any, result: Any) -> None:
        results = [y for y in _tensors(result) if y.dtype is torch.float64]
        deviations = self._next(op, args) if results else None
        if deviations is UNKNOWN:
            deviations = [self._of_one_rounding(op, args, y) for y in results]
            self._record(op, args, deviations)
        for y, deviation in zip(results, deviations or (), strict=True):
            self._perturb(y, deviation)

    def _of_one_rounding(self, op: OpOverload, args: Any, y: torch.Tensor) -> Deviation:
        size, errors = y.abs(), self._errors
        plain = (size > errors.tiny / (errors.roundoff or 1.0) * NEGLIGIBLE) & (size < math.inf) | (y == 0)
        exact = self._holds(y) if _name(op) in CORRECTLY_ROUNDED else None
        if bool((plain if exact is None else plain & ~exact).all()):
            return EXACT if _scales(op, args) else None
        return self._deviation(size, exact)

    def _summed(self, kind: str, op: OpOverload, args: Any, kwargs: Any) -> Any:
        """The moment comes from the op itself on squares, and the number of terms from it on ones; both first, and on
        copies, as it may work in place."""
        deviations = self._next(op, args)
        if deviations is not UNKNOWN:
            result = op(*args, **kwargs)
            for y, deviation in zip(_tensors(result), deviations, strict=True):
                if y.dtype is torch.float64:
                    same = isinstance(deviation, str) or deviation.shape == y.shape
                    self._perturb(y, deviation if same else None)
            return result
        moments = _tensors(op(*_each(_square, args), **_each(_square, kwargs)))
        sums = self._errors.arithmetic.sums_of(kind)
        terms = _tensors(op(*_each(_one, args), **_each(_one, kwargs))) if sums else moments
        divisor = _divisor(op, args, kwargs)
        shapes = _shape(args)
        result = op(*args, **kwargs)
        _expect_known(op, kind, result, args, kwargs)
        deviations = []
        for y, moment, count in zip(_tensors(result), moments, terms, strict=True):
            if y.dtype is not torch.float64:
                deviations.append(EXACT)
                continue
            moment.abs_()
            exact = self._holds(y) & self._holds(moment) & (moment < LARGEST_TERM**2)
            size = torch.sqrt(y * y + moment / divisor)
            if sums:
                size *= torch.as_tensor(sums.growth(count.cpu().numpy()), device=y.device)
            deviations.append(self._deviation(size, exact))
            if not self._is_recording:
                self._perturb(y, deviations[-1])
        if self._is_recording:
            self._recorded.append((op, shapes, deviations))
        return result

    def _decided(self, op: OpOverload, args: Any, kwargs: Any, result: Any) -> Any:
        kept = self._next(op, args)
        if kept is UNKNOWN:
            if self._is_recording:
                everything = self._errors.amplification > 1.0  # which moves numbers further than float64 does
                self._record(op, args, decision(op, args, kwargs, result, everything=everything))
            return result
        return result if kept is None else decided_as(kept, op, args, kwargs, result)

    def _next(self, op: OpOverload, args: Any) -> Any:
        """What the recorded run kept of this call; UNKNOWN if this run has done otherwise than that one."""
        if self._steps is None:
            return UNKNOWN
        step = next(self._steps, None)
        if step is None or step[0] is not op or step[1] != _shape(args):
            self._steps = None
            return UNKNOWN
        return step[2]

    def _record(self, op: OpOverload, args: Any, kept: Any) -> None:
        if self._is_recording:
            self._recorded.append((op, _shape(args), kept))

    def _holds(self, x: torch.Tensor) -> torch.Tensor:
        """Where x is a number of the dtype on trial; for float64, one of so few digits that no error can be in it."""
        return x.to(self._narrow) == x

    def _deviation(self, size: torch.Tensor, exact: torch.Tensor | None) -> Deviation:
        """`size` is used up."""
        smallest = size.sign() * self._errors.tiny
        deviation = size.mul_(self._errors.roundoff).add_(smallest).nan_to_num_(0.0, 0.0, 0.0)
        if exact is not None and bool(exact.any()):
            return deviation.masked_fill_(exact, 0.0) if not exact.all() else EXACT
        return deviation

    def _perturb(self, y: torch.Tensor, deviation: Deviation) -> None:
        """Add the errors to y in place, so that what it is a view of gets them too."""
        if self._is_recording or isinstance(deviation, str):
            return
        if y.device not in self._normals:
            self._normals[y.device] = Normals(y.device, self._seed)
        normal = self._normals[y.device].like(y)
        if deviation is None:
            y.addcmul_(y, normal, value=self._errors.roundoff)
        else:
            y.addcmul_(deviation, normal)


class _Sealed(TorchFunctionMode):
    """Raises UnsupportedError when floats are handed to what this module cannot see: NumPy, or a Triton kernel."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in EXITS and args[0].is_floating_point():
            raise UnsupportedError(f"what is computed beyond Tensor.{func.__name__} cannot be looked into")
        return func(*args, **(kwargs or {}))


@cache
def _rule(op: Any) -> tuple[str, type | None]:
    """How an op rounds, and in which of its results it decides. Raises UnsupportedError for what takes functions, such
    as flex_attention."""
    if not isinstance(op, OpOverload):
        raise UnsupportedError(f"torch's {op} cannot be looked into")
    return _row(op), decides_in(op)


def _copies(op: OpOverload, args: Any, kwargs: Any) -> bool:
    """Whether this call of what may sum does not."""
    name = _name(op)
    if name in ACCUMULATING:
        return not _argument(op, "accumulate", args, kwargs)
    return name == "scatter_reduce" and _argument(op, "reduce", args, kwargs) in ("amax", "amin")


def _scales(op: OpOverload, args: Any) -> bool:
    """Whether it multiplies or divides by a power of two."""
    if _name(op) not in ("mul", "div") or len(args) < 2:
        return False
    factor = args[1]
    return isinstance(factor, int | float) and abs(math.frexp(factor)[0]) == 0.5


def _shape(args: Any) -> Any:
    first = args[0] if args else None
    return first.shape if isinstance(first, torch.Tensor) else None


def _row(op: OpOverload) -> str:
    if op.namespace == "aten":
        row = ROWS.get(f"{_name(op)}.{op._overloadname}") or ROWS.get(_name(op))
        if row in (None, FUSED) and (op.is_view or torch.Tag.inplace_view in op.tags):
            return EXACT
        if row is None and torch.Tag.pointwise in op.tags:
            return ROUNDED
        if row not in (None, FUSED):
            return row
    return FUSED if _definition(op) else OPAQUE


@cache
def _name(op: OpOverload) -> str:
    return op._opname.removesuffix("_") if op._schema.is_mutable else op._opname


def _argument(op: OpOverload, name: str, args: Any, kwargs: Any) -> Any:
    place, argument = next((i, a) for i, a in enumerate(op._schema.arguments) if a.name == name)
    return args[place] if place < len(args) else kwargs.get(name, argument.default_value)


def _divisor(op: OpOverload, args: Any, kwargs: Any) -> float:
    """By how much more than the result an average's moment is divided."""
    if _name(op) not in AVERAGING:
        return 1.0
    override: float | None = _argument(op, "divisor_override", args, kwargs)
    return override or math.prod(_argument(op, "kernel_size", args, kwargs))


def _expect_known(op: OpOverload, kind: str, result: Any, args: Any, kwargs: Any) -> None:
    """Raise UnsupportedError unless the result is in float64, or is made of nothing that is."""
    results = _tensors(result)
    if kind == OPAQUE and any(x.is_floating_point() for x in (*results, *_written(op, args, kwargs))):
        raise UnsupportedError(f"{op} cannot be looked into")
    for y in results:
        narrow = y.is_floating_point() and y.dtype is not torch.float64
        if y.is_complex() or (narrow and any(x.dtype is torch.float64 for x in _tensors((args, kwargs)))):
            error = UnsupportedError if y.is_complex() else NarrowerError
            raise error(f"{op} gives {y.dtype} where the loss is called in float64")


def _written(op: OpOverload, args: Any, kwargs: Any) -> list[torch.Tensor]:
    """What an op may write to: of one that is opaque, any of its arguments."""
    return _tensors((args, kwargs)) if op._schema.is_mutable else []


def _tensors(x: Any) -> list[torch.Tensor]:
    """The tensors in nested lists, tuples and dicts."""
    if isinstance(x, torch.Tensor):
        return [x]
    inside = x.values() if isinstance(x, dict) else x if isinstance(x, list | tuple) else ()
    return [tensor for part in inside for tensor in _tensors(part)]


def _each(change: Callable[[Any], Any], x: Any) -> Any:
    """Arguments of an op with each floating tensor changed, and the factors `alpha` and `beta`."""
    if isinstance(x, torch.Tensor):
        return change(x) if x.is_floating_point() else x
    if isinstance(x, dict):
        return {name: change(part) if name in ("alpha", "beta") else _each(change, part) for name, part in x.items()}
    return [_each(change, part) for part in x] if isinstance(x, list | tuple) else x


def _square(x: Any) -> Any:
    return x * x


def _one(x: Any) -> Any:
    return torch.ones_like(x) if isinstance(x, torch.Tensor) else 1


@cache
def _definition(op: OpOverload) -> Callable[..., Any] | None:
    """A function that computes the same by other ops; None where there is none."""
    if op in DEFINITIONS:
        return DEFINITIONS[op]
    if torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), "CompositeImplicitAutograd"):
        return op.decompose
    return decomposition_table.get(op)


def _mean(x: torch.Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> torch.Tensor:
    total = torch.sum(x, dim, keepdim, dtype=dtype)
    return total / (x.numel() / max(total.numel(), 1))


def _var(x: torch.Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> torch.Tensor:
    return _var_mean(x, dim, correction=correction, keepdim=keepdim)[0]


def _var_mean(
    x: torch.Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    mean = _mean(x, dim, keepdim=True)
    difference = x - mean
    squares = torch.sum(difference * difference, dim, keepdim)
    freedom = x.numel() / max(squares.numel(), 1) - (1 if correction is None else correction)
    return squares / max(freedom, 0.0), mean.reshape(squares.shape)


def _layer_norm(
    x: torch.Tensor, shape: Sequence[int], weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    variance, mean = _var_mean(x, tuple(range(x.ndim - len(shape), x.ndim)), correction=0, keepdim=True)
    rstd = torch.rsqrt(variance + eps)
    y = (x - mean) * rstd
    y = y if weight is None else y * weight
    return y if bias is None else y + bias, mean, rstd


def _layer_norm_backward(
    g: torch.Tensor,
    x: torch.Tensor,
    shape: Sequence[int],
    mean: torch.Tensor,
    rstd: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    wanted: Sequence[bool],
) -> tuple[torch.Tensor | None, ...]:
    """As torch's kernel on the CPU (ATen/native/cpu/layer_norm_kernel.cpp), which loses digits of offset data."""
    outer, count = x.ndim - len(shape), math.prod(shape)
    inner = tuple(range(outer, x.ndim))
    weighted = g if weight is None else g * weight
    by_x, by_one = ((weighted * factor).sum(inner, keepdim=True) for factor in (x, 1.0))
    slope = (by_one * mean - by_x) * rstd**3 / count
    along_x = rstd * weighted + slope * x - (slope * mean + by_one * rstd / count)
    normalized = g * (rstd * x - rstd * mean)
    by_weight, by_bias = (y.reshape(-1, *shape).sum(0) for y in (normalized, g))
    found = (along_x, by_weight, by_bias)
    return tuple(y if asked else None for y, asked in zip(found, wanted, strict=True))


# Where torch's own go down to `torch.ops.prims`, or round less than its kernels, or are slow.
DEFINITIONS: dict[OpOverload, Callable[..., Any]] = {
    torch.ops.aten.mean.default: _mean,
    torch.ops.aten.mean.dim: _mean,
    torch.ops.aten.var.correction: _var,
    torch.ops.aten.var_mean.correction: _var_mean,
    torch.ops.aten.native_layer_norm.default: _layer_norm,
    torch.ops.aten.native_layer_norm_backward.default: _layer_norm_backward,
}
