"""`watch`: a training as it runs."""

from __future__ import annotations

from typing import Any, Self

from gradwitness import registry
from gradwitness.errors import GradwitnessError
from gradwitness.findings import Finding, lines
from gradwitness.training import Training, Watcher, Watchful
from gradwitness.watching.rules import findings_of

__all__ = ["EVERY", "Watch", "watch"]

EVERY = 10
NO_STEP = "no optimizer has stepped the parameters of this module"


class Watch:
    """A training that is watched. It is falsy if anything was found, or no step was seen, and prints what that is."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    @property
    def training(self) -> Training:
        """What was taken down so far."""
        return self._watcher.training

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is wrong with it, as far as it has run."""
        return tuple(findings_of(self.training))

    def __enter__(self) -> Self:
        if self._watcher.step is not None:
            raise GradwitnessError("a function of a step is called: step = gw.watch(step), then step(...) as before")
        self._watcher.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._watcher.stop()

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if self._watcher.step is None:
            raise GradwitnessError("a module is watched around its steps: with gw.watch(module) as seen: ...")
        return self._watcher.step(*arguments, **options)

    def __bool__(self) -> bool:
        return bool(self.training.steps) and not self.findings

    def __repr__(self) -> str:
        training = self.training
        counted = f"{training.steps} step{'' if training.steps == 1 else 's'}, {training.looked_at} looked at closely"
        told = [training.unseen] if training.unseen else []
        if not training.steps:
            return f"{counted}: {NO_STEP}"
        return "\n".join([counted, *told, *lines(self.findings)])


def watch(target: Any, *, every: int = EVERY) -> Watch:
    """Watch a training, and say what goes wrong in it although each gradient is right.

    target: a torch.nn.Module, whose steps run inside `with gw.watch(module) as seen:`; or a function of one step in
    jax, such as `step(params, batch)`, which the result stands for: `step = gw.watch(step)`. It returns what is updated
    first, in the structure of its first argument.
    every: how many steps pass between those that are looked at closely. The loss and the norm of the gradient are
    looked at in each.

    Returns a Watch. Raises GradwitnessError for what no backend watches, and if `every` is no whole number from 1 on.
    docs/watching.md has what is found, and what it costs.
    """
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise GradwitnessError(f"every: expected a whole number from 1 on, got {every!r}")
    for name in registry.backend_names():
        backend = registry.backend(name)
        if isinstance(backend, Watchful) and backend.watches(target):
            return Watch(backend.watcher(target, every))
    raise GradwitnessError(
        "watch takes a torch.nn.Module, as in `with gw.watch(module) as seen:`, or a function of one step in jax, as "
        f"in `step = gw.watch(step)`; got {type(target).__name__}"
    )
