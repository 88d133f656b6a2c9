"""What helps against gradients that vanish: the same deep network with one thing changed, and what theory foretells.

Of each, the cotangent that arrives at the first hidden layer over that at the last is measured, on every backend.
Recurrent cells are deep in time: there it is the derivative by the first input over that by the last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradwitness import ops
from gradwitness.diagnosis.flow import Tapped
from gradwitness.diagnosis.stages import stages_of
from gradwitness.evidence.norms import norm
from gradwitness.networks.initial import generator
from gradwitness.ops import Value
from gradwitness.problem import Problem
from gradwitness.run.progress import Progress
from gradwitness.settings import Settings

__all__ = ["DEPTHS", "REMEDIES", "STEPS", "Compared", "Remedy", "compared"]

DEPTHS = (10, 50)  # hidden layers
STEPS = 100  # of recurrent cells
WIDTH, BATCH = 32, 16
EPS = 1e-5
BIAS = 3.0  # of a gate that starts open
Make = Callable[[int], Problem]


@dataclass(frozen=True)
class Remedy:
    """A network at any depth. theory: the ratio that is foretold at a depth, None where nothing is; says: the same in
    words. depths: at which it is measured. clip: the norm to which its whole gradient is clipped, if it is."""

    name: str
    make: Make
    theory: Callable[[int], float] | None
    says: str
    source: str
    depths: tuple[int, ...] = DEPTHS
    clip: float = math.inf


@dataclass(frozen=True)
class Compared:
    """One network at one depth.

    cotangents: the norm of that at each hidden layer, or of the derivative by each input. gradients: the norms of those
    of each layer's weights; none of recurrent cells, which have one. used: on each backend, how much of what rounding
    may reach the worst array is off; why: why a backend has none.
    """

    remedy: Remedy
    depth: int
    cotangents: tuple[float, ...]
    gradients: tuple[float, ...] = ()
    used: Mapping[str, float] = field(default_factory=dict)
    why: Mapping[str, str] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """The first cotangent over the last."""
        return self.cotangents[0] / self.cotangents[-1] if self.cotangents[-1] else math.nan

    @property
    def norm(self) -> float:
        """Of the whole gradient by all weights; NaN for recurrent cells."""
        return float(np.hypot.reduce(self.gradients)) if self.gradients else math.nan

    @property
    def foretold(self) -> float | None:
        return None if self.remedy.theory is None else self.remedy.theory(self.depth)


# Networks


def _perceptron(
    activation: Callable[[Value], Value], gain: float, *, residual: bool = False, normalized: str = ""
) -> Make:
    """Hidden layers of one width, weights of variance gain^2 / width, biases of 0, and one more that classifies."""

    def make(depth: int) -> Problem:
        rng = generator("health", depth)
        scale = gain / math.sqrt(WIDTH)
        layers = [{"weight": rng.normal(0.0, scale, (WIDTH, WIDTH)), "bias": np.zeros(WIDTH)} for _ in range(depth)]
        norms = [{"weight": np.ones(WIDTH), "bias": np.zeros(WIDTH)} for _ in range(depth)]
        output = {"weight": rng.normal(0.0, 1 / math.sqrt(WIDTH), (4, WIDTH)), "bias": np.zeros(4)}
        params = {"layers": layers, "output": output} | ({"norms": norms} if normalized else {})
        batch = {"x": rng.normal(size=(BATCH, WIDTH)), "labels": rng.integers(0, 4, BATCH)}

        def loss(params: Any, batch: Any) -> Value:
            x = batch["x"]
            for number, layer in enumerate(params["layers"]):
                y = ops.linear(x, **layer)
                if normalized:
                    y = getattr(ops, normalized)(y, **params["norms"][number], eps=EPS)
                y = activation(y)
                x = x + y if residual else y
            return ops.cross_entropy(ops.linear(x, **params["output"]), batch["labels"], reduction="mean")

        wrt = tuple(f"layers.{number}.weight" for number in range(depth))
        return Problem(f"{depth} layers", loss, params, batch, wrt)

    return make


def _recurrent(cell: str) -> Make:
    """One cell over all steps, of which only the last is looked at."""

    def make(steps: int) -> Problem:
        rng = generator("health", steps)
        gates = {"plain": 1, "lstm": 4, "gru": 3}[cell]
        scale = 1 / math.sqrt(WIDTH)
        bias = np.zeros(gates * WIDTH)
        if cell == "lstm":
            bias[WIDTH : 2 * WIDTH] = BIAS  # the forget gate starts open (Jozefowicz et al. 2015)
        if cell == "gru":
            bias[WIDTH : 2 * WIDTH] = BIAS  # the update gate keeps the state
        params = {
            "weight_ih": rng.normal(0.0, scale, (gates * WIDTH, WIDTH)),
            "weight_hh": rng.normal(0.0, scale, (gates * WIDTH, WIDTH)),
            "bias_ih": bias,
            "bias_hh": np.zeros(gates * WIDTH),
        }
        inputs = {str(step): rng.normal(size=(BATCH, WIDTH)) for step in range(steps)}
        batch = {"inputs": inputs, "target": rng.normal(size=(BATCH, WIDTH)), "zero": np.zeros((BATCH, WIDTH))}

        def loss(params: Any, batch: Any) -> Value:
            h = c = batch["zero"]
            for x in batch["inputs"].values():
                if cell == "lstm":
                    h, c = ops.lstm_cell(x, h, c, **params)
                elif cell == "gru":
                    h = ops.gru_cell(x, h, **params)
                else:
                    into = ops.linear(x, params["weight_ih"], params["bias_ih"])
                    h = ops.tanh(into + ops.linear(h, params["weight_hh"], params["bias_hh"]))
            return ops.mse(h, batch["target"], reduction="mean", half=True)

        return Problem(f"{steps} steps", loss, params, batch, tuple(f"inputs.{step}" for step in range(steps)))

    return make


def _power(factor: float) -> Callable[[int], float]:
    """Of what each layer multiplies by."""
    return lambda depth: factor ** (depth - 1)


XAVIER, HE = 1.0, math.sqrt(2.0)  # gains: variances of 1 / fan_in and 2 / fan_in
GLOROT = "Glorot & Bengio 2010"
OPEN, GATE = 1 / (1 + math.exp(-BIAS)), "its gate, 0.95 a step"
HE_2015 = "He et al. 2015, arXiv:1502.01852"

REMEDIES: Sequence[Remedy] = (
    Remedy("sigmoid, Xavier", _perceptron(ops.sigmoid, XAVIER), _power(0.25), "at most 0.25 a layer", GLOROT),
    Remedy("tanh, Xavier", _perceptron(ops.tanh, XAVIER), _power(1.0), "at most 1 a layer", GLOROT),
    Remedy("ReLU, Xavier", _perceptron(ops.relu, XAVIER), _power(0.5**0.5), "the root of 1/2 a layer", HE_2015),
    Remedy("ReLU, He", _perceptron(ops.relu, HE), _power(1.0), "1 a layer", HE_2015),
    Remedy("leaky ReLU, He", _perceptron(ops.leaky_relu, HE), _power(1.0), "1 a layer", HE_2015),
    Remedy("ReLU, twice He", _perceptron(ops.relu, 2 * HE), _power(2.0), "2 a layer", HE_2015),
    Remedy(
        "ReLU, twice He, clipped",
        _perceptron(ops.relu, 2 * HE),
        _power(2.0),
        "2 a layer, the norm 1",
        "Pascanu et al. 2013",
        clip=1.0,
    ),
    Remedy(
        "sigmoid, residual",
        _perceptron(ops.sigmoid, XAVIER, residual=True),
        _power(1.0),
        "1 a layer or more",
        "He et al. 2016, arXiv:1603.05027",
    ),
    Remedy(
        "ReLU, Xavier, batch norm",
        _perceptron(ops.relu, XAVIER, normalized="batch_norm"),
        _power(math.sqrt(math.pi / (math.pi - 1))),
        "1.21 a layer",
        "Yang et al. 2019, arXiv:1902.08129",
    ),
    Remedy(
        "ReLU, Xavier, layer norm",
        _perceptron(ops.relu, XAVIER, normalized="layer_norm"),
        _power(1.0),
        "of order 1",
        "Ba et al. 2016, arXiv:1607.06450",
    ),
    Remedy("plain recurrent cell", _recurrent("plain"), None, "falls as a power", "Pascanu et al. 2013", (STEPS,)),
    Remedy(
        "GRU",
        _recurrent("gru"),
        _power(OPEN),
        GATE,
        "Cho et al. 2014",
        (STEPS,),
    ),
    Remedy(
        "LSTM",
        _recurrent("lstm"),
        _power(OPEN),
        GATE,
        "Gers et al. 2000",
        (STEPS,),
    ),
)


def compared(settings: Settings, backends: Sequence[str], *, progress: Progress = lambda text: None) -> list[Compared]:
    """Every remedy at each of its depths."""
    found = []
    for remedy in REMEDIES:
        for depth in remedy.depths:
            progress(f"{remedy.name}, {depth}")
            found.append(_compared(remedy, depth, settings, backends))
    return found


def _compared(remedy: Remedy, depth: int, settings: Settings, backends: Sequence[str]) -> Compared:
    (dtype,), (device,) = settings.dtypes, settings.devices
    problem = remedy.make(depth).rounded(dtype)
    is_recurrent = problem.differentiated[0].startswith("inputs.")
    stages = () if is_recurrent else stages_of(problem.graph, problem.differentiated)
    watched = Tapped.of(problem, stages, dtype, settings)
    flows = [watched.flow(backend, device, settings) for backend in backends]
    gradients = [norm(watched.exact[path]) for path in problem.differentiated]
    factor = min(1.0, remedy.clip / float(np.hypot.reduce(gradients)))
    cotangents = gradients if is_recurrent else [one.cotangent for one in watched.passing]
    return Compared(
        remedy,
        depth,
        tuple(factor * size for size in cotangents),
        () if is_recurrent else tuple(factor * size for size in gradients),
        {flow.backend: flow.used for flow in flows if not flow.why},
        {flow.backend: flow.why for flow in flows if flow.why},
    )
