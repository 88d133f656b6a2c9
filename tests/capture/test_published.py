"""Published models as they are, on every backend: each gradient agrees, and by the graph that is read out of the model.

In an environment with `transformers`, as `nox -s models` makes it.
"""

from __future__ import annotations

import pytest

NAMES = (
    *("Llama", "GPT-2", "Qwen3", "Mixtral", "Mamba", "BERT", "T5", "ResNet", "ConvNeXt", "ViT"),
    *("transformer in flax nnx", "MLP-Mixer in equinox"),
)


@pytest.mark.nightly
@pytest.mark.parametrize("name", NAMES)
def test_every_gradient_agrees_on_every_backend(name: str) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed: nox -s models has it")
    from benchmarks.models.__main__ import measured

    found = measured(name)
    assert found["ops"] > 0
    assert not found["not captured"]
    for dtype in ("float64", "float32"):
        assert set(found["verdicts"][dtype]) <= {"agree", "convention"}, found["failures"]
    assert "disagree" not in found["verdicts"]["bfloat16"], found["failures"]
