"""What a parameter's path says: the words of its layer, the numbers in it, and its role there."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["OUTPUT", "Name", "read_name"]

ROLES = {
    "weight": "weight",
    "kernel": "weight",
    "w": "weight",
    "scale": "weight",
    "gamma": "weight",
    "embedding": "weight",
    "bias": "bias",
    "b": "bias",
    "beta": "bias",
    "offset": "bias",
    "mean": "mean",
    "var": "var",
}
SYNONYMS = {
    "dense": "linear",
    "fc": "linear",
    "lin": "linear",
    "convolution": "conv",
    "embed": "embedding",
    "emb": "embedding",
    "q": "query",
    "k": "key",
    "v": "value",
    "bn": "batch norm",
    "ln": "layer norm",
}
SILENT = {
    "params",
    "layers",
    "module",
    "modules",
    "model",
    "self",
    "running",
    "moving",
    "d",
    "cell",
    "proj",
    "projection",
}
WRAPPING = re.compile(r"^(intermediates|batch_stats|params)\.|\.(value|__call__(\.0)?)$")
OUTPUT = "output"  # of the whole model
TOKEN = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")


@dataclass(frozen=True)
class Name:
    """words: of the layer, in order, synonyms made equal. numbers: in order. role: in the layer, None if unknown.

    leaf: the word that gave the role. stem: the layer, as words and numbers.
    """

    words: tuple[str, ...]
    numbers: tuple[int, ...]
    role: str | None
    leaf: str

    @property
    def stem(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        return self.words, self.numbers


def read_name(path: str, kind: str = "", *, layer: bool = False) -> Name:
    """kind: the class of its layer, where that is known. layer: the path is that of a layer, and has no role."""
    while (bare := WRAPPING.sub("", path)) != path:
        path = bare
    path = OUTPUT if path.startswith("__call__") else path
    before, _, last = path.rpartition(".")
    called = last if layer else before.rpartition(".")[2]
    kind = "" if re.search("[A-Za-z]", called) else re.sub(r"\d+d$", "", kind)  # of a layer that has but a number
    own = _tokens(last)
    leaf = "" if layer else next((token for token in own if token in ROLES), "")
    if leaf:
        own.remove(leaf)
    tokens = [token for token in [*_tokens(before), *_tokens(kind), *own] if token not in SILENT]
    words = dict.fromkeys(w for token in tokens if not token.isdigit() for w in SYNONYMS.get(token, token).split())
    return Name(tuple(words), tuple(int(token) for token in tokens if token.isdigit()), ROLES.get(leaf), leaf)


def _tokens(text: str) -> list[str]:
    return [token.lower() for token in TOKEN.findall(text)]
