"""The backend "torch.compile": forward and backward compiled by inductor, each as one graph."""

from __future__ import annotations

from dataclasses import replace

from gradwitness_torch.eager import Loss, TorchBackend

__all__ = ["TorchCompileBackend"]


class TorchCompileBackend(TorchBackend):
    """torch.compile of the same lowered loss; a graph break raises."""

    name = "torch.compile"
    capabilities = replace(TorchBackend.capabilities, compiles=True)

    def _ready(self, loss: Loss) -> Loss:
        import torch

        compiled: Loss = torch.compile(loss, fullgraph=True, dynamic=False)
        return compiled
