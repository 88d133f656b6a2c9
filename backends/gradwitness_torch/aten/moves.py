"""Aten's ops that compute nothing: they only move elements about, or look at no number at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_flatten, tree_map

from gradwitness.compositions import is_float, labels, moved
from gradwitness.errors import GradwitnessError

__all__ = ["DETACHED", "IDENTITIES", "MOVES", "SHAPE_ALONE", "by_labels"]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


DETACHED = _names("detach detach_copy")
IDENTITIES = DETACHED | _names("alias alias_copy clone contiguous lift_fresh lift positive")
SHAPE_ALONE = _names(  # what they return depends on no number of their operands, or only on where they lie
    "empty_like zeros_like ones_like full_like rand_like randn_like randint_like new_empty new_zeros new_ones new_full "
    "new_empty_strided empty_strided sym_size sym_numel sym_stride sym_storage_offset _to_functional_tensor "
    "is_same_size _assert_async _assert_tensor_metadata _has_compatible_shallow_copy_type is_pinned "
    "scalar_tensor as_strided"
)
MOVES = _names(  # each element of a result is one of an operand's, or zero
    "flip roll index _unsafe_index gather index_select take diagonal diagonal_copy unfold as_strided_copy "
    "repeat tril triu reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d "
    "replication_pad3d pixel_shuffle pixel_unshuffle im2col upsample_nearest1d upsample_nearest2d upsample_nearest3d "
    "_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d masked_select diag_embed scatter "
    "slice_scatter select_scatter diagonal_scatter as_strided_scatter index_copy masked_scatter rot90 movedim "
    "channel_shuffle split_copy unbind_copy repeat_interleave"
)


def by_labels(func: Any, args: Any, kwargs: Any) -> Any:
    """What an op that only moves elements returns, by what it does with labels in place of floats."""
    if func._overloadname.startswith(("value", "reduce")):
        raise GradwitnessError("a number that is written to places has no rule; give a tensor")
    floats = [x for x in tree_flatten((args, kwargs))[0] if is_float(x)]
    marks = dict(zip(map(id, floats), labels(*(np.shape(x) for x in floats)), strict=True))

    def marked(x: Any) -> Any:
        if id(x) in marks:
            return torch.from_numpy(marks[id(x)].astype(np.float64))
        return torch.from_numpy(x) if isinstance(x, np.ndarray) else x

    found = func(*tree_map(marked, args), **tree_map(marked, kwargs))
    return tree_map(lambda y: moved(y.numpy().astype(np.int64), *floats), found)
