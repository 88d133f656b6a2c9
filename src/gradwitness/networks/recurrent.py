"""LSTM and GRU over characters of a sonnet: the same cell at every step, a loss at every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gradwitness import ops
from gradwitness.networks.data import characters, vocabulary_size
from gradwitness.networks.initial import bias, dense, generator, weight
from gradwitness.ops import Value
from gradwitness.problem import Problem

__all__ = ["gru", "lstm"]

Run = Callable[[Any, Value], list[Value]]


def lstm(*, batch: int = 3, time: int = 6, embedding: int = 5, hidden: int = 8, seed: int = 0) -> Problem:
    """Embedding, an LSTM from a learned state, a linear readout; cross entropy of each next character."""
    return _language_model("lstm", _lstm_steps, 4, ("h", "c"), batch, time, embedding, hidden, seed)


def gru(*, batch: int = 4, time: int = 5, embedding: int = 6, hidden: int = 9, seed: int = 0) -> Problem:
    """Embedding, a GRU from a learned state, a linear readout; cross entropy of each next character."""
    return _language_model("gru", _gru_steps, 3, ("h",), batch, time, embedding, hidden, seed)


def _language_model(
    name: str,
    run: Run,
    gates: int,
    states: tuple[str, ...],
    batch: int,
    time: int,
    embedding: int,
    hidden: int,
    seed: int,
) -> Problem:
    """Params and batch of a recurrent network with `gates` gates, and its loss over all steps."""
    rng = generator(name, seed)
    vocabulary, rows = vocabulary_size(), gates * hidden
    text = characters(batch, time + 1, offset=int(rng.integers(500)))
    params = {
        "embedding": rng.normal(size=(vocabulary, embedding)),
        "cell": {
            "weight_ih": weight(rng, rows, embedding),
            "weight_hh": weight(rng, rows, hidden),
            "bias_ih": bias(rng, rows),
            "bias_hh": bias(rng, rows),
        },
        "initial": {state: bias(rng, hidden) for state in states},
        "output": dense(rng, hidden, vocabulary, gain=2.0),
    }

    def loss(params: Any, batch: Any) -> Value:
        embedded = ops.take(params["embedding"], batch["characters"], axis=0)  # (batch, time, embedding)
        outputs = ops.stack(run(params, embedded), axis=1)  # (batch, time, hidden)
        logits = ops.linear(outputs, **params["output"]).reshape(-1, vocabulary)
        return ops.cross_entropy(logits, batch["next"].reshape(-1), reduction="mean")

    return Problem(name, loss, params, {"characters": text[:, :-1], "next": text[:, 1:]})


def _lstm_steps(params: Any, embedded: Value) -> list[Value]:
    h, c = _initial(params, "h", embedded), _initial(params, "c", embedded)
    outputs = []
    for t in range(embedded.shape[1]):
        h, c = ops.lstm_cell(embedded[:, t], h, c, **params["cell"])
        outputs.append(h)
    return outputs


def _gru_steps(params: Any, embedded: Value) -> list[Value]:
    h = _initial(params, "h", embedded)
    outputs = []
    for t in range(embedded.shape[1]):
        h = ops.gru_cell(embedded[:, t], h, **params["cell"])
        outputs.append(h)
    return outputs


def _initial(params: Any, state: str, embedded: Value) -> Value:
    """The learned state (hidden,) for every example of the batch."""
    learned = params["initial"][state]
    return ops.broadcast_to(learned, shape=(embedded.shape[0], *learned.shape))
