"""Where torch's functions differ from their namesakes in jax, flax and haiku, and how torch would do it their way.

torch's functions are intercepted as they are called (`TorchFunctionMode`), so that modules and plain losses are served
alike. A convention is a row of `CONVENTIONS`: whose calls it concerns, and what would be done in their place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from gradwitness.protocol import Deviation

__all__ = ["CONVENTIONS", "Convention", "deviating", "deviations_in"]

Arguments = dict[str, Any]
Call = Callable[[Arguments], Any]
EPSILONS = (1e-3, 1e-5, 1e-6, 1e-8, 1e-12)  # Keras and TensorFlow; torch and haiku; flax; T5's kin; BERT
MOMENTA = (0.1, 0.01, 0.001)  # torch's default; flax's and Keras's, 0.99 there; EfficientNet's kin


@dataclass(frozen=True)
class Variant:
    """One other way: what is done (was), what would be (would), and `run(call, arguments)`, which does it."""

    was: str
    would: str
    run: Callable[[Call, Arguments], Any]
    remedy: str


@dataclass(frozen=True)
class Convention:
    """functions: torch's, with the names of their positional arguments. variants: of a call's arguments and result."""

    name: str
    functions: dict[Any, tuple[str, ...]]
    variants: Callable[[Arguments, Any], Iterator[Variant]]


@dataclass(frozen=True)
class _Change:
    """A variant of a convention at every call to which it applies, or at one, by its number."""

    convention: Convention
    would: str
    number: int | None


# Ways to run a call.


def _with(changes: Arguments, call: Call, given: Arguments) -> Any:
    return call({**given, **changes})


def _epsilons(default: float | None, given: Arguments, result: Any) -> Iterator[Variant]:
    eps = given.get("eps", default)
    eps = torch.finfo(result.dtype).eps if eps is None else eps  # rms_norm's default
    for other in EPSILONS:
        if other != eps:
            yield Variant(f"{eps:g}", f"{other:g}", partial(_with, {"eps": other}), "give both the same epsilon")


def _gelu(given: Arguments, result: Any) -> Iterator[Variant]:
    names = {"none": "erf", "tanh": "tanh"}
    was = given.get("approximate", "none")
    for kind, name in names.items():
        if kind != was:
            remedy = f"write jax.nn.gelu(x, approximate={was == 'tanh'})"
            yield Variant(names[was], name, partial(_with, {"approximate": kind}), remedy)
    quick = Variant(names[was], "x sigmoid(1.702 x)", _quick_gelu, f"write jax.nn.gelu(x, approximate={was == 'tanh'})")
    yield quick


def _quick_gelu(call: Call, given: Arguments) -> torch.Tensor:
    x: torch.Tensor = given["input"]
    return x * torch.sigmoid(1.702 * x)


def _ddof_of_layer_norm(given: Arguments, result: Any) -> Iterator[Variant]:
    yield Variant("0", "1", _unbiased_layer_norm, "take the variance with ddof=0, jnp.var's default")


def _unbiased_layer_norm(call: Call, given: Arguments) -> torch.Tensor:
    x, weight, bias = given["input"], given.get("weight"), given.get("bias")
    axes = tuple(range(-len(given["normalized_shape"]), 0))
    y = (x - x.mean(axes, keepdim=True)) / torch.sqrt(x.var(axes, correction=1, keepdim=True) + given.get("eps", 1e-5))
    y = y if weight is None else y * weight
    result: torch.Tensor = y if bias is None else y + bias
    return result


def _trains(given: Arguments) -> bool:
    return bool(given.get("training")) and given.get("running_var") is not None


def _momentum(given: Arguments, result: Any) -> Iterator[Variant]:
    """The running mean becomes (1 - m) old + m new in torch, and m old + (1 - m) new in flax and Keras."""
    m = given.get("momentum", 0.1)
    if not _trains(given) or m is None:
        return
    remedy = f"momentum={m:g} in torch is momentum={1 - m:g} in flax and decay_rate={1 - m:g} in haiku"
    for other in dict.fromkeys((1 - m, *MOMENTA)):
        if other != m:
            yield Variant(f"{m:g} of the new", f"{other:g} of the new", partial(_with, {"momentum": other}), remedy)


def _running_variance(given: Arguments, result: Any) -> Iterator[Variant]:
    """torch averages the variance with ddof=1, and flax and haiku that with ddof=0."""
    if _trains(given):
        remedy = "a port cannot change it in flax; scale the new variance by n / (n - 1) if evaluation is to be equal"
        yield Variant("ddof=1", "ddof=0", _biased_running_variance, remedy)


def _biased_running_variance(call: Call, given: Arguments) -> Any:
    x, running = given["input"], given["running_var"]
    old = running.clone()
    result = call(given)
    count = x.numel() // x.shape[1]
    m = given.get("momentum", 0.1)
    rest = (1 - m) * old
    running.copy_(rest + (running - rest) * (count - 1) / count)
    return result


def _correction(given: Arguments, result: Any) -> Iterator[Variant]:
    was = _ddof(given)
    if was in (0, 1):
        remedy = f"take it with ddof={was} in jax, or correction={1 - was} in torch"
        yield Variant(str(was), str(1 - was), partial(_with_correction, 1 - was), remedy)


def _ddof(given: Arguments) -> Any:
    if given.get("correction") is not None:
        return given["correction"]
    return int(bool(given.get("unbiased", True)))


def _with_correction(correction: int, call: Call, given: Arguments) -> Any:
    rest = {key: value for key, value in given.items() if key not in ("unbiased", "correction")}
    return call({"dim": None, **rest, "correction": correction})


def _flatten(given: Arguments, result: Any) -> Iterator[Variant]:
    x = given["input"]
    if isinstance(result, torch.Tensor) and x.ndim > 2 == result.ndim and len(x) == len(result):
        sizes = ", ".join(map(str, x.shape[1:]))
        remedy = (
            "have jax flatten in torch's order, jnp.moveaxis(x, -1, 1) first; or give the next weight's layout, "
            f"gradwitness.port.flattened({sizes}), in mapping="
        )
        yield Variant("channels first", "channels last", _channels_last, remedy)


def _channels_last(call: Call, given: Arguments) -> torch.Tensor:
    shape = call(given).shape
    x: torch.Tensor = given["input"]
    return x.movedim(1, -1).reshape(shape)


def _reduction(given: Arguments, result: Any) -> Iterator[Variant]:
    was = given.get("reduction", "mean")
    for would in ("mean", "sum"):
        if would != was and was in ("mean", "sum"):
            yield Variant(was, would, partial(_with, {"reduction": would}), f"take the {was} in jax")


NORM = ("input", "normalized_shape", "weight", "bias", "eps")
RMS = ("input", "normalized_shape", "weight", "eps")
BATCH: dict[Any, tuple[str, ...]] = {
    F.batch_norm: ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
}
VAR = ("input", "dim", "unbiased", "keepdim")
VARIANCES = (torch.var, torch.std, torch.Tensor.var, torch.Tensor.std)
FLATTENING = (torch.flatten, torch.Tensor.flatten)
RESHAPING = (torch.reshape, torch.Tensor.reshape, torch.Tensor.view)
LOSSES = (F.mse_loss, F.l1_loss, F.cross_entropy, F.nll_loss, F.binary_cross_entropy_with_logits, F.smooth_l1_loss)

CONVENTIONS = (
    Convention("gelu", {F.gelu: ("input",)}, _gelu),
    Convention("layer_norm eps", {F.layer_norm: NORM, torch.layer_norm: NORM}, partial(_epsilons, 1e-5)),
    Convention("rms_norm eps", {F.rms_norm: RMS, torch.rms_norm: RMS}, partial(_epsilons, None)),
    Convention(
        "group_norm eps", {F.group_norm: ("input", "num_groups", "weight", "bias", "eps")}, partial(_epsilons, 1e-5)
    ),
    Convention("batch_norm eps", BATCH, partial(_epsilons, 1e-5)),
    Convention("layer_norm ddof", {F.layer_norm: NORM, torch.layer_norm: NORM}, _ddof_of_layer_norm),
    Convention("ddof of the variance", dict.fromkeys(VARIANCES, VAR), _correction),
    Convention("batch_norm running variance", BATCH, _running_variance),  # inside of momentum, which it has to know
    Convention("batch_norm momentum", BATCH, _momentum),
    Convention(
        "order of flattening",
        dict.fromkeys(FLATTENING, ("input", "start_dim", "end_dim")) | dict.fromkeys(RESHAPING, ("input",)),
        _flatten,
    ),
    Convention("reduction of the loss", dict.fromkeys(LOSSES, ("input", "target")), _reduction),
)


class _Intercepting(TorchFunctionMode):
    """Runs each call with the changes that concern it; without changes it records which there could be."""

    def __init__(self, changes: Sequence[_Change] | None) -> None:
        super().__init__()
        self.changes = changes
        self.calls: Counter[str] = Counter()  # so far, by convention and variant
        self.seen: dict[tuple[str, str], tuple[Convention, Variant]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        concerned = [c for c in CONVENTIONS if func in c.functions]
        if not concerned:
            return func(*args, **(kwargs or {}))
        call, given = _bound(func, concerned[0].functions[func], args, kwargs or {})
        result = None
        if any(convention.name == "order of flattening" for convention in concerned) or self.changes is None:
            result = call(_apart(given))
        for convention in concerned:
            call = self._changed(convention, call, given, result)
        return call(given)

    def _changed(self, convention: Convention, call: Call, given: Arguments, result: Any) -> Call:
        like = given["input"] if result is None else result
        for variant in convention.variants(given, like):
            key = convention.name, variant.would
            self.calls[repr(key)] += 1
            self.seen.setdefault(key, (convention, variant))
            for change in self.changes or ():
                here = change.number in (None, self.calls[repr(key)])
                if (change.convention.name, change.would) == key and here:
                    call = partial(variant.run, call)
        return call


def _bound(func: Any, names: Sequence[str], args: Sequence[Any], kwargs: Arguments) -> tuple[Call, Arguments]:
    """The call as a function of its arguments by name, and these; what has no name here stays by position."""
    rest = tuple(args[len(names) :])
    given = dict(zip(names, args, strict=False)) | kwargs
    if isinstance(given.get("dim"), bool):  # torch.var(x, unbiased)
        given["unbiased"] = given.pop("dim")

    def call(given: Arguments) -> Any:
        first = names if rest else ("input",)
        others = {key: value for key, value in given.items() if key not in first}
        return func(*(given[name] for name in first), *rest, **others)

    return call, given


def _apart(given: Arguments) -> Arguments:
    """Arguments to look at a result by: what a batch norm writes to is a copy."""
    written = {name: given[name].clone() for name in ("running_mean", "running_var") if given.get(name) is not None}
    return {**given, **written}


def deviating(changes: Sequence[_Change]) -> AbstractContextManager[Any]:
    """torch's functions with these changes, for the time of the context."""
    return _Intercepting(changes) if changes else nullcontext()


def deviations_in(run: Callable[[], Any]) -> list[Deviation]:
    """What could be done otherwise in a run: at all calls that it concerns, and then at each single one."""
    with (mode := _Intercepting(None)):
        run()
    found = []
    for key, (convention, variant) in mode.seen.items():
        count = mode.calls[repr(key)]
        for number in (None, *(range(1, count + 1) if count > 1 else ())):
            place = "" if number is None else f" (call {number} of {count})"
            text = f"{convention.name}{place}: {variant.was} in torch, {variant.would} in jax"
            found.append(Deviation(text, variant.remedy, _Change(convention, variant.would, number), number is None))
    return found
