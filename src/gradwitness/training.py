"""What a watched training shows, as data: an adapter takes it down, and `watching` says what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

__all__ = ["NonFinite", "Training", "Watcher", "Watchful"]


@dataclass(frozen=True)
class NonFinite:
    """Where numbers stopped being finite.

    step: the first, from 1. what: where it was seen, such as "the loss". origin: "data", "parameter" or "op": whether
    they came in with the data, were in a parameter, or came out of an op; place: which, as far as that is known; line:
    the user's line. backwards: whether it came up in the backward pass, whose loss was finite.
    """

    step: int
    what: str
    origin: str
    place: str
    line: str = ""
    backwards: bool = False


@dataclass
class Training:
    """A training from its first watched step on. Steps count from 1.

    steps: how many there were; looked_at: those that were looked at closely. norms: of the gradient, or of the update
    where only that is seen, by step. carried: steps whose first backward pass began with what an earlier step had left,
    with the norm of that. unequal: steps whose micro-batches weigh their examples unequally, with the weight of an
    example in each. clipped: of each call that clips, the norm before and the limit. received: by parameter, (in how
    many of the steps that were looked at it got a gradient that is not 0, or moved; how many of its steps were looked
    at). still: by parameter that did not move at all, why, as far as that is known. logs: lines at which a log follows
    a softmax. unseen: why nothing could be seen, if so.
    """

    steps: int = 0
    looked_at: int = 0
    norms: dict[int, float] = field(default_factory=dict)
    carried: dict[int, float] = field(default_factory=dict)
    unequal: dict[int, tuple[float, ...]] = field(default_factory=dict)
    clipped: list[tuple[float, float]] = field(default_factory=list)
    received: dict[str, tuple[int, int]] = field(default_factory=dict)
    still: dict[str, str] = field(default_factory=dict)
    logs: dict[str, None] = field(default_factory=dict)
    nonfinite: NonFinite | None = None
    unseen: str = ""

    def receive(self, name: str, has: bool) -> None:
        """Note of a parameter whose step is looked at whether it got something."""
        got, looks = self.received.get(name, (0, 0))
        self.received[name] = got + has, looks + 1


class Watcher(Protocol):
    """Takes down a training. Either the training runs between `start` and `stop`, or `step` is the function of a step
    that is watched whenever it is called."""

    training: Training
    step: Callable[..., Any] | None

    def start(self) -> None: ...
    def stop(self) -> None: ...


@runtime_checkable
class Watchful(Protocol):
    """A backend that watches trainings."""

    def watches(self, target: Any) -> bool:
        """Whether this is what it watches: a module of its framework, or a function of a step. Imports nothing."""
        ...

    def watcher(self, target: Any, every: int) -> Watcher:
        """every: how many steps pass between those that are looked at closely."""
        ...
