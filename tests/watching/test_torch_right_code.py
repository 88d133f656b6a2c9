"""Right training code of torch in its usual forms: silence; and faults that hide in them: found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, mse_loss, softplus

import gradwitness as gw
from tests.watching.test_torch import batches, model, said

SKIPS = 0.5


def two_optimizers() -> gw.Watch:
    net = model(4, 8, 1)
    every = [torch.optim.SGD(part.parameters(), 0.01) for part in (net[0], net[2])]
    with gw.watch(net) as seen:
        for x, y in batches(40):
            for optimizer in every:
                optimizer.zero_grad()
            mse_loss(net(x), y).backward()
            for optimizer in every:
                optimizer.step()
    assert seen.training.steps == 40
    return seen


class Pair(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator, self.critic = model(4, 8, 4), model(4, 8, 1, seed=1)


def adversarial() -> gw.Watch:
    """Each loss also reaches the other's parameters, whose gradients are cleared before their own step."""
    pair = Pair()
    generating = torch.optim.Adam(pair.generator.parameters(), 1e-3)
    judging = torch.optim.Adam(pair.critic.parameters(), 1e-3)
    with gw.watch(pair, every=2) as seen:
        for x, _ in batches(20):
            judging.zero_grad()
            fake, real = pair.critic(pair.generator(x)), pair.critic(x)
            (softplus(fake).mean() + softplus(-real).mean()).backward()
            judging.step()
            generating.zero_grad()
            softplus(-pair.critic(pair.generator(x))).mean().backward()
            generating.step()
    return seen


def beside_another() -> gw.Watch:
    """Another module is trained in the same loop, clipped, and with unequal weights."""
    mine, other = model(4, 8, 1), model(4, 8, 1, seed=3)
    optimizers = [torch.optim.SGD(net.parameters(), 0.01) for net in (mine, other)]
    with gw.watch(mine, every=2) as seen:
        for x, y in batches():
            mse_loss(other(x[:6]), y[:6]).backward()
            (0.1 * mse_loss(other(x[6:]), y[6:])).backward()
            torch.nn.utils.clip_grad_norm_(other.parameters(), 1e-6)
            optimizers[1].step()
            optimizers[1].zero_grad()
            optimizers[0].zero_grad()
            mse_loss(mine(x), y).backward()
            optimizers[0].step()
    return seen


def two_losses() -> gw.Watch:
    net = model(4, 8, 1)
    optimizer = torch.optim.AdamW(net.parameters(), 0.01)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    with gw.watch(net, every=2) as seen:
        for x, y in batches():
            optimizer.zero_grad()
            mse_loss(net(x), y).backward()
            penalty = torch.stack([(p**2).sum() for p in net.parameters()]).sum()
            (1e-3 * penalty).backward()
            optimizer.step()
            schedule.step()
    return seen


def scaled(net: torch.nn.Module, optimizer: torch.optim.Optimizer, infinite: bool) -> gw.Watch:
    """What a scaler for float16 does: steps whose gradients overflow are skipped, and the scale is halved."""
    scale = 1e38 if infinite else 1024.0
    with gw.watch(net, every=1) as seen:
        for number, (x, y) in enumerate(batches()):
            optimizer.zero_grad()
            (mse_loss(net(x) * (1e3 if infinite and number < 3 else 1.0), y) * scale).backward()
            gradients = [p.grad for p in net.parameters() if p.grad is not None]
            if all(bool(torch.isfinite(g).all()) for g in gradients) and number != 4:
                for g in gradients:
                    g /= scale
                optimizer.step()
            else:
                scale *= SKIPS
    return seen


def by_a_scaler() -> gw.Watch:
    net = model(4, 8, 1)
    return scaled(net, torch.optim.SGD(net.parameters(), 0.01), infinite=False)


def by_a_scaler_that_overflows() -> gw.Watch:
    net = model(4, 8, 1)
    return scaled(net, torch.optim.SGD(net.parameters(), 1e-5), infinite=True)


def measured_by_clipping() -> gw.Watch:
    """clip_grad_norm_ without a limit is how many read the norm."""
    net = model(4, 8, 1)
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    with gw.watch(net) as seen:
        for x, y in batches():
            optimizer.zero_grad()
            mse_loss(net(x), y).backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), float("inf"))
            optimizer.step()
    return seen


@pytest.mark.parametrize(
    "script",
    [
        two_optimizers,
        adversarial,
        beside_another,
        two_losses,
        by_a_scaler,
        by_a_scaler_that_overflows,
        measured_by_clipping,
    ],
)
def test_right_code_is_silent(script: Callable[[], gw.Watch]) -> None:
    seen = script()
    assert said(seen) == []
    assert seen


def trained(net: torch.nn.Module, loss: Callable[[Any, Any, int], Any], *, every: int = 2) -> gw.Watch:
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    with gw.watch(net, every=every) as seen:
        for number, (x, y) in enumerate(batches(), start=1):
            optimizer.zero_grad()
            loss(x, y, number).backward()
            optimizer.step()
    return seen


@pytest.mark.parametrize("last", [True, False])
def test_unequal_micro_batches_are_found_beside_a_penalty(last: bool) -> None:
    net = model(4, 8, 5)
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    with gw.watch(net, every=2) as seen:
        for x, _ in batches(examples=20):
            optimizer.zero_grad()
            for part in (slice(0, 16), slice(16, 20)):
                labels = torch.arange(len(x[part])) % 5
                penalty = 1e-3 * sum((p**2).sum() for p in net.parameters())
                mean = cross_entropy(net(x[part]), labels)
                (mean + penalty if last else penalty + mean).backward()
            optimizer.step()
    assert {finding.kind for finding in seen.findings} == {"unequal micro-batches"}


def test_a_line_is_that_of_the_graph_which_it_is_of() -> None:
    net = model(4, 8, 4)

    def loss(x: Any, y: Any, number: int) -> Any:
        if number < 6:
            return torch.exp(net(x) * 0.1).mean()
        return torch.log(net(x) * 0.0 + (0.0 if number == 9 else 1.0)).mean()

    (finding,) = trained(net, loss, every=1).findings
    assert "step 9: the loss: it came out of log" in str(finding)
    assert "torch.exp" not in str(finding)
    assert "return torch.log(net(x)" in str(finding)


def test_a_row_that_is_masked_as_a_whole_is_named() -> None:
    net = model(4, 8, 4)

    def loss(x: Any, y: Any, number: int) -> Any:
        mask = torch.zeros(len(x), 4)
        mask[2] = float("-inf") if number == 5 else 0.0
        return (torch.softmax(net(x) + mask, 1) ** 2).sum()

    (finding,) = trained(net, loss).findings
    assert "step 5: the loss: it came out of softmax" in str(finding)


def test_the_root_behind_a_where_is_found() -> None:
    net = model(4, 8, 4)

    def loss(x: Any, y: Any, number: int) -> Any:
        h = net(x) if number == 4 else net(x).abs() + 1.0
        return torch.where(h > 0, h.sqrt(), 0.0).sum()

    (finding,) = trained(net, loss, every=1).findings
    assert "the backward of sqrt" in str(finding)
    assert "in the backward pass" in str(finding)


@pytest.mark.parametrize("index", ["[rows, labels]", ".gather(1, labels[:, None])", " + 1e-9"])
def test_a_log_of_what_is_picked_of_a_softmax_is_found(index: str) -> None:
    net = model(4, 8, 5)
    rows, labels = torch.arange(8), torch.arange(8) % 5

    def loss(x: Any, y: Any, number: int) -> Any:
        p = torch.softmax(net(x), 1)
        picked = {"[rows, labels]": p[rows, labels], " + 1e-9": p + 1e-9}.get(index, p.gather(1, labels[:, None]))
        return -torch.log(picked).mean()

    assert [finding.kind for finding in trained(net, loss).findings] == ["log of softmax"]


class Dead(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.live, self.dead = torch.nn.Linear(4, 1), torch.nn.Linear(4, 1)

    def forward(self, x: Any) -> Any:
        return self.live(x) + 0.0 * self.dead(x)


def test_a_parameter_whose_gradient_is_always_zero_is_found() -> None:
    net = Dead()
    seen = trained(net, lambda x, y, number: mse_loss(net(x), y))
    assert {finding.where for finding in seen.findings} == {"dead.weight", "dead.bias"}


def test_a_watch_that_saw_no_step_is_no_pass() -> None:
    net = model(4, 8, 1)
    with gw.watch(net) as seen:
        for x, y in batches(3):
            mse_loss(net(x), y).backward()
    assert not seen
    assert "no optimizer has stepped" in repr(seen)
