"""The claims, as data: read down the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gradwitness.claims import measures
from gradwitness.claims.measuring import Bench, Measured

__all__ = ["CLAIMS", "Claim"]


@dataclass(frozen=True)
class Claim:
    """What is claimed, by whom, and how it is measured here.

    name: the claim in words. source: who says so. low, high: the figures claimed, in the unit of what is measured; an
    infinite end where only a direction is claimed. measure: a function that gives each figure that was measured.
    """

    name: str
    source: str
    low: float
    high: float
    measure: Callable[[Bench], Iterator[Measured]]


ANSEL = "Ansel et al., ASPLOS 2024, doi:10.1145/3620665.3640366: 1.41x in training on an A100"
CHEAP = 'Griewank and Walther, "Evaluating Derivatives", 2nd ed., 2008, chapters 3 and 4'
MORE = float("inf")

CLAIMS = (
    Claim("torch.compile cuts backward time by 30 to 50% on transformers (part cut)", ANSEL, 0.3, 0.5, measures.cut),
    Claim(
        "torch.compile makes medium and large models 1.3 to 2 times faster (times)", ANSEL, 1.3, 2.0, measures.faster
    ),
    Claim(
        "backward costs about twice forward (times)",
        "Kaplan et al., arXiv:2001.08361, section 2.1",
        1.5,
        2.5,
        measures.backward_over_forward,
    ),
    Claim("one reverse pass gives all P derivatives (e of P^e)", CHEAP, -0.2, 0.2, measures.by_reverse_mode),
    Claim("forward mode takes P passes (e of P^e)", CHEAP, 0.8, 1.2, measures.by_forward_mode),
    Claim("differences take 2P forward passes (e of P^e)", CHEAP, 0.8, 1.2, measures.by_differences),
    Claim("training holds more memory than inference (times)", CHEAP, 1.0, MORE, measures.training_over_inference),
    Claim("reverse mode holds more memory than forward mode (times)", CHEAP, 1.0, MORE, measures.reverse_over_forward),
    Claim("the memory of reverse mode grows with depth (e of depth^e)", CHEAP, 0.5, 1.2, measures.memory_with_depth),
    Claim(
        "softmax and then log is slower than log_softmax (times)",
        "the documentation of torch.nn.functional.log_softmax",
        1.0,
        MORE,
        measures.apart_over_fused,
    ),
    Claim(
        "softmax and then log is less accurate than log_softmax (times the error)",
        "the documentation of torch.nn.functional.log_softmax",
        1.0,
        MORE,
        measures.error_apart_over_fused,
    ),
    Claim(
        "checkpoints cost at most one more forward pass (times)",
        "Chen et al., arXiv:1604.06174, section 4",
        1.0,
        1.5,
        measures.time_of_checkpoints,
    ),
    Claim(
        "checkpoints save memory (part of it that is left)",
        "Chen et al., arXiv:1604.06174, section 4",
        0.0,
        1.0,
        measures.memory_of_checkpoints,
    ),
)
