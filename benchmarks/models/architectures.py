"""Architectures of `transformers`, and models in equinox and flax nnx: small, random, with a loss and a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import transformers

from benchmarks.models import in_jax
from gradwitness_torch import from_module

__all__ = ["ARCHITECTURES", "Model"]


class Model(NamedTuple):
    """The loss of a model in a backend's arrays, and the point."""

    backend: str
    loss: Callable[[Any, Any], Any]
    params: Any
    batch: Any


WORDS, LENGTH, EXAMPLES, CLASSES = 50, 6, 2, 5
TRANSFORMER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": WORDS,
}
GROUPED = {**TRANSFORMER, "num_key_value_heads": 2}  # two heads of the query share one of keys and values
VISION = {key: value for key, value in TRANSFORMER.items() if key != "vocab_size"}


def _of_module(module: torch.nn.Module, loss: Callable[[Any, Any], Any], batch: Any) -> Model:
    return Model("torch", *from_module(module.eval(), loss), batch)


def _words() -> torch.Tensor:
    return torch.randint(1, WORDS, (EXAMPLES, LENGTH))  # 0 is padding, whose row gets no gradient by intention


def _image(size: int = 16) -> dict[str, torch.Tensor]:
    return {"x": torch.randn(EXAMPLES, 3, size, size), "y": torch.arange(EXAMPLES)}


def _of_text(module: Any, batch: Any) -> Any:
    return module(input_ids=batch["words"], labels=batch["words"]).loss


def _of_labels(module: Any, batch: Any) -> Any:
    return module(input_ids=batch["words"], labels=batch["y"]).loss


def _of_images(module: Any, batch: Any) -> Any:
    return module(pixel_values=batch["x"], labels=batch["y"]).loss


def _language(kind: str, **settings: Any) -> Callable[[], Model]:
    """A causal language model."""

    def make() -> Model:
        config = getattr(transformers, f"{kind}Config")(**settings)
        module = getattr(transformers, "GPT2LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM")(config)
        return _of_module(module, _of_text, {"words": _words()})

    return make


def _images(kind: str, **settings: Any) -> Callable[[], Model]:
    def make() -> Model:
        config = getattr(transformers, f"{kind}Config")(num_labels=CLASSES, **settings)
        module = getattr(transformers, f"{kind}ForImageClassification")(config)
        return _of_module(module, _of_images, _image())

    return make


def _bert() -> Model:
    module = transformers.BertForSequenceClassification(transformers.BertConfig(num_labels=CLASSES, **TRANSFORMER))
    return _of_module(module, _of_labels, {"words": _words(), "y": torch.arange(EXAMPLES)})


def _t5() -> Model:
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    config = transformers.T5Config(vocab_size=WORDS, decoder_start_token_id=0, **sizes)
    return _of_module(transformers.T5ForConditionalGeneration(config), _of_text, {"words": _words()})


ARCHITECTURES: dict[str, Callable[[], Model]] = {
    "Llama": _language("Llama", **GROUPED),
    "GPT-2": _language("GPT2", n_embd=32, n_layer=2, n_head=4, vocab_size=WORDS, bos_token_id=0, eos_token_id=0),
    "Qwen3": _language("Qwen3", head_dim=8, **GROUPED),
    "Gemma": _language("Gemma", head_dim=8, **GROUPED),
    "Mixtral": _language(
        "Mixtral", num_local_experts=4, num_experts_per_tok=2, experts_implementation="eager", **GROUPED
    ),
    "Mamba": _language("Mamba", hidden_size=32, num_hidden_layers=2, state_size=8, vocab_size=WORDS),
    "BERT": _bert,
    "T5": _t5,
    "ResNet": _images("ResNet", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"),
    "ConvNeXt": _images("ConvNext", hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, patch_size=2),
    "ViT": _images("ViT", image_size=16, patch_size=8, **VISION),
    "transformer in flax nnx": lambda: Model("jax", *in_jax.transformer()),
    "MLP-Mixer in equinox": lambda: Model("jax", *in_jax.mixer()),
}
