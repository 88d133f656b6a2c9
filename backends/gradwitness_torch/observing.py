"""A module, or a loss of params, that shows its activations, and can be run by other conventions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn

from gradwitness import tree
from gradwitness.dtypes import Array
from gradwitness.errors import GradwitnessError
from gradwitness.protocol import Deviation
from gradwitness_torch.conventions import deviating, deviations_in
from gradwitness_torch.modules import from_module

__all__ = ["ObservedTorch", "observed"]

Tensors = dict[str, torch.Tensor]


class ObservedTorch:
    """See `gradwitness.protocol.Observed`."""

    def __init__(
        self,
        loss: Callable[[Any, Any], Any],
        shown: Callable[[Any, Any], Any],
        params: Mapping[str, Any],
        constants: Mapping[str, Any],
        kinds: Mapping[str, str],
        dtype: str,
    ) -> None:
        self._dtype: torch.dtype = getattr(torch, dtype)
        self.loss, self._shown, self.params, self.constants, self.kinds = loss, shown, params, constants, kinds

    def values(self, params: Mapping[str, Any], batch: Any, deviations: Sequence[Deviation] = ()) -> dict[str, Array]:
        with deviating([deviation.change for deviation in deviations]):
            return self._run(params, batch)

    def deviations(self, batch: Any) -> list[Deviation]:
        return deviations_in(lambda: self._run(self.params, batch))

    def wide(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def _run(self, params: Mapping[str, Any], batch: Any) -> dict[str, Array]:
        leaves = {name: _placed(x, self._dtype) for name, x in tree.flatten(batch, "batch").items()}
        given = {name: _placed(x, self._dtype) for name, x in params.items()}
        with torch.no_grad():
            shown = self._shown(given, tree.rebuild(batch, leaves, "batch"))
        loss, activations = shown if isinstance(shown, tuple) else (shown, {})
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            raise GradwitnessError(
                "the torch loss must return one number, or (that, {name: activation}), got "
                + (f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss).__name__)
            )
        found = {name: _host(x) for name, x in tree.flatten(activations, "activations").items()}
        return {**found, "loss": _host(loss.reshape(()))}


def observed(model: Any, loss: Any, params: Any, dtype: str) -> ObservedTorch:
    """A module with `loss(module, batch)`, whose layers' outputs and running statistics are shown by their names; or
    `loss(params, batch)` with params. Raises GradwitnessError for anything else."""
    if isinstance(model, nn.Module):
        if loss is None or params is not None:
            raise GradwitnessError(
                "a torch module needs torch_loss=, a loss(module, batch), and no torch_params=, as it has its own"
            )
        return _of_module(model, loss, dtype)
    if not callable(model) or params is None or loss is not None:
        raise GradwitnessError(
            "expected a torch.nn.Module with torch_loss=loss(module, batch), or a loss(params, batch) with "
            f"torch_params=, got {type(model).__name__}"
        )
    shown = _of_leaves(model, params)
    return ObservedTorch(_first(shown), shown, _flat(params), {}, {}, dtype)


def _of_module(module: nn.Module, loss: Any, dtype: str) -> ObservedTorch:
    of_params, params = from_module(module, _first(loss) if callable(loss) else loss)
    from_module(module, loss)  # refuses a loss that uses the module from outside
    shown, _ = from_module(module, _showing(loss))
    every = chain(module.named_parameters(), module.named_buffers())
    constants = {name: _host(x) for name, x in every if name not in params and x.is_floating_point()}
    kinds = {name: type(layer).__name__ for name, layer in module.named_modules()}
    return ObservedTorch(of_params, shown, {n: p.detach() for n, p in params.items()}, constants, kinds, dtype)


def _showing(loss: Any) -> Callable[[Any, Any], Any]:
    """The loss of a module, with the outputs of its layers as they come, and its buffers as they are afterwards."""

    def shown(module: nn.Module, batch: Any) -> tuple[Any, dict[str, Any]]:
        outputs: dict[str, torch.Tensor] = {}
        with _hooked(module, outputs):
            value = loss(module, batch)
        value, own = value if isinstance(value, tuple) else (value, {})
        state = {name: x for name, x in module.named_buffers() if x.is_floating_point()}
        return value, {**outputs, **own, **state}

    return shown


@contextmanager
def _hooked(module: nn.Module, outputs: Tensors) -> Iterator[None]:
    def hook(name: str) -> Callable[..., None]:
        def keep(layer: nn.Module, inputs: Any, output: Any) -> None:
            first = next(_tensors(output), None)
            if first is not None:
                again = sum(key.partition("[")[0] == name for key in outputs)
                outputs[f"{name}[{again + 1}]" if again else name] = first

        return keep

    handles = [layer.register_forward_hook(hook(name or "output")) for name, layer in module.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensors(output: Any) -> Iterator[torch.Tensor]:
    """The floating tensors in what a layer returns; a copy, as the next layer may work in place."""
    if isinstance(output, torch.Tensor):
        if output.is_floating_point():
            yield output.clone()
    elif isinstance(output, tuple | list):
        yield from chain.from_iterable(map(_tensors, output))


def _first(loss: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """The loss without its activations."""

    def alone(of: Any, batch: Any) -> Any:
        value = loss(of, batch)
        return value[0] if isinstance(value, tuple) else value

    return alone


def _of_leaves(loss: Callable[[Any, Any], Any], params: Any) -> Callable[[Any, Any], Any]:
    return lambda leaves, batch: loss(tree.rebuild(params, leaves, "params"), batch)


def _flat(params: Any) -> dict[str, Any]:
    return {name: torch.as_tensor(x).detach() for name, x in tree.flatten(params, "params").items()}


def _placed(x: Any, dtype: torch.dtype) -> torch.Tensor:
    """A copy; floats in this dtype."""
    tensor = x.detach().clone() if isinstance(x, torch.Tensor) else torch.from_numpy(np.array(x))
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _host(x: Any) -> Array:
    return np.array(torch.as_tensor(x).detach().cpu().double().numpy())
