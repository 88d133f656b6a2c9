"""Each pitfall planted in a small training script of torch: found, and named; the same script without it: silence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch

import gradwitness as gw

STEPS = 12
Script = Callable[[bool], gw.Watch]


def model(*sizes: int, seed: int = 0) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    layers: list[torch.nn.Module] = []
    for n, m in pairwise(sizes):
        layers += [torch.nn.Linear(n, m), torch.nn.Tanh()]
    return torch.nn.Sequential(*layers[:-1])


def batches(count: int = STEPS, examples: int = 8, features: int = 4) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        x = torch.randn(examples, features, generator=generator)
        yield x, x.sum(1, keepdim=True)


def forgotten_zero_grad(wrong: bool) -> gw.Watch:
    net = model(4, 8, 1)
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    with gw.watch(net, every=3) as seen:
        for x, y in batches():
            if not wrong:
                optimizer.zero_grad()
            torch.nn.functional.mse_loss(net(x), y).backward()
            optimizer.step()
    return seen


def forgotten_parameters(wrong: bool) -> gw.Watch:
    """Two layers, one of which no optimizer has."""
    torch.manual_seed(0)
    net = torch.nn.ModuleDict({"a": torch.nn.Linear(4, 1), "b": torch.nn.Linear(4, 1)})
    optimizer = torch.optim.Adam(net["a"].parameters() if wrong else net.parameters(), 0.01)
    with gw.watch(net) as seen:
        for x, y in batches():
            net.zero_grad()
            torch.nn.functional.mse_loss(net["a"](x) + net["b"](x), y).backward()
            optimizer.step()
    return seen


def rate_of_zero(wrong: bool) -> gw.Watch:
    net = model(4, 8, 1)
    optimizer = torch.optim.SGD(net.parameters(), 0.0 if wrong else 0.01)
    with gw.watch(net) as seen:
        for x, y in batches():
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(net(x), y).backward()
            optimizer.step()
    return seen


def zeros_are_not_left(wrong: bool) -> gw.Watch:
    """zero_grad(set_to_none=False) leaves zeros, and every fourth step forgets it."""
    net = model(4, 8, 1)
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    with gw.watch(net, every=4) as seen:
        for number, (x, y) in enumerate(batches()):
            if not (wrong and number % 4 == 0):
                optimizer.zero_grad(set_to_none=False)
            torch.nn.functional.mse_loss(net(x), y).backward()
            optimizer.step()
    return seen


def mean_of_means(wrong: bool) -> gw.Watch:
    net = model(4, 8, 1)
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    with gw.watch(net, every=2) as seen:
        for x, y in batches(examples=10):
            optimizer.zero_grad()
            for part in (slice(0, 8), slice(8, 10)):
                share = 0.5 if wrong else len(x[part]) / len(x)
                (torch.nn.functional.mse_loss(net(x[part]), y[part]) * share).backward()
            optimizer.step()
    return seen


def mean_over_words(wrong: bool) -> gw.Watch:
    """Of sequences of unequal length, whose padding counts for nothing."""
    net = model(4, 8, 5)
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    with gw.watch(net, every=2) as seen:
        for x, _ in batches(examples=12):
            labels = torch.arange(12) % 5
            labels[6:10] = -100
            optimizer.zero_grad()
            for part in (slice(0, 6), slice(6, 12)):
                words = int((labels[part] != -100).sum())
                share = 0.5 if wrong else words / int((labels != -100).sum())
                (torch.nn.functional.cross_entropy(net(x[part]), labels[part]) * share).backward()
            optimizer.step()
    return seen


def clipped(limit: float) -> gw.Watch:
    net = model(4, 8, 1)
    optimizer = torch.optim.SGD(net.parameters(), 0.05)
    with gw.watch(net) as seen:
        for number, (x, y) in enumerate(batches()):
            optimizer.zero_grad()
            (torch.nn.functional.mse_loss(net(x), y) * (1 + 5 * (number % 2))).backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), limit)
            optimizer.step()
    return seen


class Half(torch.nn.Module):
    def __init__(self, uses: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.used, self.left_out, self.uses = torch.nn.Linear(4, 1), torch.nn.Linear(4, 1), uses

    def forward(self, x: Any) -> Any:
        return self.used(x) + (self.left_out(x) if self.uses else self.left_out(x).detach())


def detached(wrong: bool) -> gw.Watch:
    net = Half(uses=not wrong)
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    with gw.watch(net, every=2) as seen:
        for x, y in batches():
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(net(x), y).backward()
            optimizer.step()
    return seen


def log_of_softmax(wrong: bool) -> gw.Watch:
    net = model(4, 8, 5)
    optimizer = torch.optim.SGD(net.parameters(), 0.05)
    with gw.watch(net) as seen:
        for x, _ in batches():
            optimizer.zero_grad()
            logits = net(x)
            log = torch.log(torch.softmax(logits, 1)) if wrong else torch.log_softmax(logits, 1)
            torch.nn.functional.nll_loss(log, torch.arange(8) % 5).backward()
            optimizer.step()
    return seen


def underflowing_softmax(wrong: bool) -> gw.Watch:
    """From step 40 on a probability is 0, and its log is not finite."""
    net = model(4, 8, 5)
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    with gw.watch(net) as seen:
        for number, (x, _) in enumerate(batches(45), start=1):
            optimizer.zero_grad()
            scale = 1000.0 if number >= 40 and wrong else 1.0
            logits = net(x) * scale
            probabilities = torch.exp(torch.log_softmax(logits, 1))
            loss = -torch.log(probabilities)[torch.arange(8), torch.arange(8) % 5].mean()
            loss.backward()
            optimizer.step()
    return seen


class Cell(torch.nn.Module):
    def __init__(self, gain: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = torch.nn.Parameter(gain * torch.randn(8, 8) / 8**0.5)
        self.into = torch.nn.Linear(4, 8)

    def forward(self, x: Any) -> Any:
        h = self.into(x)
        for _ in range(30):
            h = h @ self.weight + self.into(x)
        return h.sum(1, keepdim=True)


def exploding_cell(wrong: bool) -> gw.Watch:
    """A learning rate that doubles at every step, or stays."""
    net = Cell(0.5)
    optimizer = torch.optim.SGD(net.parameters(), 1e-4)
    with gw.watch(net) as seen:
        for x, y in batches(40):
            optimizer.param_groups[0]["lr"] *= 1.5 if wrong else 1.0
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(net(x), y).backward()
            optimizer.step()
    return seen


def corrupted_example(wrong: bool) -> gw.Watch:
    net = model(4, 8, 1)
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    with gw.watch(net) as seen:
        for number, (x, y) in enumerate(batches(), start=1):
            if wrong and number == 7:
                x[5, 2] = float("nan")
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(net(x), y).backward()
            optimizer.step()
    return seen


def root_of_zero(wrong: bool) -> gw.Watch:
    """A distance of 0 is finite, and its derivative is not."""
    net = model(4, 8, 1)
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    with gw.watch(net, every=4) as seen:
        for number, (x, y) in enumerate(batches(), start=1):
            optimizer.zero_grad()
            given = net(x)
            target = given.detach().clone() if wrong and number == 6 else y
            ((given - target) ** 2).sum().sqrt().backward()
            optimizer.step()
    return seen


PLANTED: dict[str, tuple[Script, str, str]] = {  # script: (kind, words of what is found)
    "forgotten zero_grad": (forgotten_zero_grad, "zero_grad forgotten", "step 2"),
    "forgotten parameters": (forgotten_parameters, "never moved", "it is in no optimizer that stepped"),
    "a rate of zero": (rate_of_zero, "never moved", "a learning rate of 0"),
    "zeros are not left": (zeros_are_not_left, "zero_grad forgotten", "step 5"),
    "mean of means": (mean_of_means, "unequal micro-batches", "weighs 0.25, 1 in its 2 micro-batches"),
    "mean over words": (mean_over_words, "unequal micro-batches", "weighs 0.333, 1 in its 2 micro-batches"),
    "detached": (detached, "no gradient", "left_out.weight"),
    "log of softmax": (log_of_softmax, "log of softmax", "torch.log(torch.softmax(logits, 1))"),
    "underflowing softmax": (underflowing_softmax, "not finite", "step 40: the loss: it came out of log at "),
    "exploding cell": (exploding_cell, "not finite", "the norm of the gradient grew from "),
    "corrupted example": (corrupted_example, "not finite", "step 7: the loss: it came in with the data, in row 5 of "),
    "root of zero": (root_of_zero, "not finite", "the backward of sqrt at "),
}


def said(seen: gw.Watch) -> list[str]:
    return [str(finding) for finding in seen.findings]


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_found_and_named(name: str) -> None:
    script, kind, words = PLANTED[name]
    seen = script(True)
    found = [str(finding) for finding in seen.findings if finding.kind == kind]
    assert not seen
    assert any(words in one for one in found), said(seen)
    if kind == "not finite" and "data" not in words and "grew" not in words:
        assert f"{__file__}:" in found[0]


@pytest.mark.parametrize("name", PLANTED)
def test_without_it_there_is_silence(name: str) -> None:
    script, _, _ = PLANTED[name]
    seen = script(False)
    assert said(seen) == []
    assert seen
    assert "nothing found" in repr(seen)


@pytest.mark.parametrize(("limit", "kind"), [(1e-3, "clipping always binds"), (1e6, "clipping never binds")])
def test_clipping_that_does_nothing_of_use_is_found(limit: float, kind: str) -> None:
    seen = clipped(limit)
    assert [finding.kind for finding in seen.findings] == [kind]
    assert f"in all of {STEPS} calls" in seen.findings[0].message


def test_clipping_that_binds_at_times_is_silent() -> None:
    norms = [size for size, _ in clipped(1e6).training.clipped]
    assert said(clipped(sorted(norms)[len(norms) // 2])) == []


def test_a_step_goes_as_it_does_unwatched() -> None:
    def trained(watched: bool) -> list[torch.Tensor]:
        net = model(4, 8, 1)
        optimizer = torch.optim.Adam(net.parameters(), 0.01)

        def run() -> None:
            for x, y in batches():
                optimizer.zero_grad()
                torch.nn.functional.mse_loss(net(x), y).backward()
                torch.nn.utils.clip_grad_norm_(net.parameters(), 0.5)
                optimizer.step()

        if watched:
            with gw.watch(net):
                run()
        else:
            run()
        return [p.detach() for p in net.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(trained(True), trained(False), strict=True))


def test_everything_is_put_back_whatever_is_raised() -> None:
    before = torch.autograd.backward, torch.nn.utils.clip_grad._clip_grads_with_norm_, torch.is_anomaly_enabled()
    net = model(4, 8, 1)
    with pytest.raises(ZeroDivisionError), gw.watch(net):
        assert 1 / 0 if torch.autograd.backward is not before[0] else "is not watched"
    after = torch.autograd.backward, torch.nn.utils.clip_grad._clip_grads_with_norm_, torch.is_anomaly_enabled()
    assert after == before
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    net(torch.ones(1, 4)).sum().backward()
    optimizer.step()  # which no hook sees any more


def test_another_modules_steps_are_not_counted() -> None:
    mine, other = model(4, 8, 1), model(4, 8, 1, seed=2)
    optimizer = torch.optim.SGD(other.parameters(), 0.01)
    with gw.watch(mine) as seen:
        for x, _ in batches(3):
            other(x).sum().backward()
            optimizer.step()
    assert seen.training.steps == 0


@pytest.mark.parametrize("target", [3, "model", None, torch.ones(2)])
def test_what_cannot_be_watched_is_said(target: Any) -> None:
    with pytest.raises(gw.GradwitnessError, match=r"with gw.watch\(module\) as seen"):
        gw.watch(target)


@pytest.mark.parametrize("every", [0, -1, 1.5, True])
def test_every_is_a_whole_number(every: Any) -> None:
    with pytest.raises(gw.GradwitnessError, match="a whole number from 1 on"):
        gw.watch(model(4, 1), every=every)


def test_a_module_is_not_called_through_its_watch() -> None:
    with pytest.raises(gw.GradwitnessError, match=r"with gw.watch\(module\)"):
        gw.watch(model(4, 1))(torch.ones(2, 4))
