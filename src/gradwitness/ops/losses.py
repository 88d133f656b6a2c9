"""Losses. Mean or sum, and the one half of the squared error, are said at each call: defaults differ between texts."""

from __future__ import annotations

from gradwitness.ops.arrays import one_hot
from gradwitness.ops.elementwise import abs as absolute
from gradwitness.ops.elementwise import equal, exp, log1p, maximum, minimum, negative, where
from gradwitness.ops.samples import labels as integers
from gradwitness.ops.samples import positive, real, sample
from gradwitness.ops.shapes import expect, expect_dtype
from gradwitness.ops.softmax import log_softmax
from gradwitness.ops.value import FLOAT, INT, Operand, Spec, Value
from gradwitness.ops.vocabulary import SMOOTH, Regions, op, tails

IGNORED = -100  # torch's default ignore_index


def _reduce(losses: Value, reduction: str) -> Value:
    return losses.mean() if reduction == "mean" else losses.sum()


def _expect_reduction(reduction: str) -> None:
    expect(reduction in ("mean", "sum"), f'reduction must be "mean" or "sum", got {reduction!r}')


def _expect_match(prediction: Spec, target: Spec) -> None:
    expect_dtype(FLOAT, prediction=prediction, target=target)
    expect(prediction.shape == target.shape, "prediction and target must have the same shape (nothing is broadcast)")
    expect(prediction.size > 0, "nothing to average: the batch is empty")


def _mse(prediction: Value, target: Value, *, reduction: str, half: bool) -> Value:
    difference = prediction - target
    total = _reduce(difference * difference, reduction)
    return total * 0.5 if half else total


@op(
    samples=[
        sample(real(3, 4), real(3, 4), reduction="mean", half=False),
        sample(real(5), real(5), reduction="sum", half=True),
        sample(real(2, 1, 3), real(2, 1, 3), reduction="mean", half=True),
    ],
    definition=_mse,
)
def mse(prediction: Operand, target: Operand, *, reduction: str, half: bool) -> Spec:
    """(prediction - target)^2, averaged or summed over all elements; times one half if `half`."""
    _expect_reduction(reduction)
    _expect_match(prediction, target)
    return Spec(())


def _huber(prediction: Value, target: Value, *, delta: float, reduction: str) -> Value:
    # As optax has it: the gradient of a small error is (it - delta) + delta, whose rounding is that of delta.
    error = absolute(prediction - target)
    quadratic = minimum(error, delta)
    return _reduce(quadratic * quadratic * 0.5 + (error - quadratic) * delta, reduction)


@op(
    samples=[
        sample(real(3, 4), real(3, 4), delta=0.8, reduction="mean"),
        sample(real(5), real(5), delta=1.3, reduction="sum"),
        sample(real(2, 1, 3), real(2, 1, 3), delta=0.4, reduction="mean"),
    ],
    definition=_huber,
    regions=Regions(
        at=lambda delta, reduction: (-delta, delta),
        of=lambda prediction, target, delta, reduction: prediction - target,
        what="with an error",
    ),
)
def huber(prediction: Operand, target: Operand, *, delta: float, reduction: str) -> Spec:
    """Half the squared error within delta, delta * (|error| - delta / 2) beyond (Huber 1964)."""
    _expect_reduction(reduction)
    _expect_match(prediction, target)
    expect(delta > 0, f"delta must be positive, got {delta}")
    return Spec(())


def _cross_entropy(logits: Value, labels: Value, *, reduction: str, label_smoothing: float, ignore_index: int) -> Value:
    classes = logits.shape[1]
    log_probabilities = log_softmax(logits, axis=1)
    losses = negative((one_hot(labels, num_classes=classes) * log_probabilities).sum(1))
    if label_smoothing:
        spread = negative(log_probabilities.mean(1))
        losses = losses * (1 - label_smoothing) + spread * label_smoothing
    ignored = equal(labels, ignore_index)
    total = where(ignored, 0.0, losses).sum()
    return total / where(ignored, 0.0, 1.0).sum() if reduction == "mean" else total


@op(
    samples=[
        sample(real(5, 4, scale=2.0), integers(5, high=4), reduction="mean"),
        sample(real(3, 7), integers(3, high=7), reduction="sum", label_smoothing=0.1),
        sample(real(8, 3), integers(8, high=3), reduction="mean", label_smoothing=0.2, ignore_index=1),
    ],
    definition=_cross_entropy,
    regions=Regions(
        at=lambda ignore_index, **others: () if ignore_index == IGNORED else (0.5,),  # who names one has such labels
        of=lambda logits, labels, *, ignore_index, **others: labels == ignore_index,
        names=("with a label that counts", "with an ignored label"),
    ),
)
def cross_entropy(
    logits: Operand,
    labels: Operand,
    *,
    reduction: str,
    label_smoothing: float = 0.0,
    ignore_index: int = IGNORED,
) -> Spec:
    """-log softmax(logits)[label] for logits (N, C) and integer labels (N,).

    Labels equal to ignore_index count neither in the sum nor in the denominator of the mean. With
    label smoothing e the target is (1 - e) one_hot + e / C (Szegedy et al., arXiv:1512.00567, 7).
    """
    _expect_reduction(reduction)
    expect_dtype(FLOAT, logits=logits)
    expect_dtype(INT, labels=labels)
    expect(logits.ndim == 2, f"logits must have shape (N, C), got {list(logits.shape)}; reshape the others into N")
    expect(labels.shape == logits.shape[:1], f"labels must have shape (N,) = ({logits.shape[0]},)")
    expect(logits.size > 0, "nothing to average: the batch is empty")
    expect(0 <= label_smoothing < 1, f"label_smoothing must lie in [0, 1), got {label_smoothing}")
    return Spec(())


def _binary_cross_entropy_with_logits(logits: Value, targets: Value, *, reduction: str) -> Value:
    losses = maximum(logits, 0.0) - logits * targets + log1p(exp(negative(absolute(logits))))
    return _reduce(losses, reduction)


@op(
    samples=[
        sample(real(3, 4, scale=2.0), positive(3, 4), reduction="mean"),
        sample(real(5), positive(5, scale=0.3), reduction="sum"),
        sample(real(2, 1, 3, scale=3.0), positive(2, 1, 3, scale=0.5), reduction="mean"),
    ],
    definition=_binary_cross_entropy_with_logits,
    kink=SMOOTH,
    regions=tails(-3.0, 3.0),
)
def binary_cross_entropy_with_logits(logits: Operand, targets: Operand, *, reduction: str) -> Spec:
    """-(t log sigmoid(z) + (1 - t) log(1 - sigmoid(z))) without overflow, averaged or summed."""
    _expect_reduction(reduction)
    _expect_match(logits, targets)
    return Spec(())
