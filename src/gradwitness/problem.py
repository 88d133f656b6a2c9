"""What is put on trial: a `Problem` (loss, params, batch) and its `Candidate` implementations."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import numpy as np

from gradwitness import tree
from gradwitness.complex_leaves import is_complex, joined, parts_of, split, whole
from gradwitness.dtypes import DTYPES, OF_PARTS, Array, frozen, round_to
from gradwitness.errors import GradwitnessError, ProblemError
from gradwitness.graph import COTANGENT, Graph, trace

__all__ = ["COTANGENT", "Candidate", "Derived", "Intention", "Problem", "as_array", "dtype_as_given"]

Loss = Callable[[Any, Any], Any]
Intended = Mapping[str, str | tuple[str, float]]
NAMED = re.compile(r"(?P<path>.*)\[(?P<where>[-\d\s,:]+)\]")  # a leaf with elements of it: "embedding[0]"
WIDE = {"f": np.float64, "i": np.int64, "u": np.int64, "b": np.bool_}  # by kind, what leaves are held as
LARGEST = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Derived:
    """A further derivative of a loss stands for a candidate's loss, as the framework itself takes it.

    loss: a Graph, or a loss in the framework's own arrays; problem: its own, with params and batch as it takes them.
    way: one of those that `Capabilities.ways` has for the derivative. The candidate's own problem has what else the
    derivative needs: directions, or a copy of the params for each example.
    """

    loss: Graph | Loss
    problem: Problem
    way: str


@dataclass(frozen=True)
class Candidate:
    """One implementation on trial: a backend, the loss that it runs, and perhaps a gradient written by hand.

    backend: a backend's name, such as "torch".
    loss: `loss(params, batch)` in the framework's own arrays, which returns one number (shape `()` or `[1]`); or a
    Graph, which the backend lowers; or None for the problem's own graph.
    gradient: `gradient(params, batch)`, which returns a tree shaped like params (or the leaves that `wrt` names), in
    the framework's arrays or NumPy's. Each leaf has the shape of its parameter, and its dtype or a wider one; None is
    for one that no path leads to. Without it the framework differentiates the loss. If the loss returns an array, it
    takes the cotangent as well: `gradient(params, batch, cotangent)`.
    value_and_gradient: returns (loss, gradient) in one call; it may stand alone.
    options: of the backend (`Capabilities.options`), such as {"jit": False} for jax.
    path: the way to the gradient (`Capabilities.paths`), such as "vmap", instead of the backend's plain one.
    custom: your own rules that must have a part in the gradient, or their names: an autograd.Function, a custom_vjp, a
    custom_op.

    Raises GradwitnessError if backend is not a name.
    """

    backend: str
    loss: Graph | Loss | Derived | None = None
    _: KW_ONLY
    gradient: Callable[..., Any] | None = None
    value_and_gradient: Callable[..., Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    path: str | None = None
    custom: Any = ()

    def __post_init__(self) -> None:
        if not isinstance(self.backend, str):
            raise GradwitnessError(
                f'a candidate begins with the name of its backend, as in Candidate("torch", loss), got {self.backend!r}'
            )

    @property
    def is_written_by_hand(self) -> bool:
        """Whether its gradient is written by hand, so that no framework differentiates."""
        return self.gradient is not None or self.value_and_gradient is not None


@dataclass(frozen=True)
class Intention:
    """Why a leaf's gradient is meant to differ from the derivative.

    distance: by how much at most, as part of the gradient's norm; None where no derivative can tell. elements: an index
    of those that it concerns, None for all; where: the same in words.
    """

    reason: str
    distance: float | None = None
    elements: tuple[int | slice, ...] | None = None
    where: str = ""


@dataclass(frozen=True, eq=False)
class Problem:
    """A loss over `gradwitness.ops`, or its Graph, with the point at which you ask for its gradient.

    name: what the report calls it.
    loss: `loss(params, batch)`, a Graph, or None if each candidate brings a loss of its own.
    params, batch: nested dicts, lists or tuples of arrays. Floats are held as float64, integers as int64. The floating
    leaves of params are differentiated, or the leaves of params or batch that `wrt` names by path. A complex leaf `w`
    is two leaves, `w.real` and `w.imag`, which a loss in a framework's own arrays sees as one.
    cotangent: for a loss that returns an array, the weights of its elements: an array of its shape, or "random". It is
    a leaf with the path "cotangent". For a loss that returns a tuple, list or dict of arrays it is nested in the same
    way.
    intended: the differentiated leaves whose gradient is meant to differ from the derivative, each with a reason,
    "straight-through", or with a reason and a distance, ("continuous adjoint", 1e-4). The gradient may then be off by
    that part of its norm. A key may be a pattern, such as "encoder.*", or name elements, such as "embedding[0]".

    Raises ProblemError, with the path, for a leaf that cannot be used or differentiated.
    """

    name: str
    loss: Loss | Graph | None
    params: Any
    batch: Any
    wrt: tuple[str, ...] | None = None
    cotangent: Any = None
    intended: Intended = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self)

    @cached_property
    def leaves(self) -> dict[str, Array]:
        """Every leaf of params and batch by path: copies, as float64, int64 or bool, that cannot be written to."""
        both = {**self._arrays(self.params, "params")}
        for path, array in self._arrays(self.batch, "batch").items():
            if path in both:
                raise ProblemError(
                    f"params and batch both have a leaf {path!r}, and leaves are matched by path: "
                    'rename one, or name what is in a list, {"w": w} instead of [w]'
                )
            both[path] = array
        if self.cotangent is not None and not isinstance(self.cotangent, str):
            for path, weights in tree.flatten({COTANGENT: self.cotangent}, COTANGENT).items():
                if path in both:
                    raise ProblemError(f"a leaf has the path {path!r}, which the cotangent takes: rename it")
                both[path] = as_array(weights, path)
        return both

    @cached_property
    def complex(self) -> frozenset[str]:
        """The paths, in params and batch, of leaves that are complex."""
        given = {**tree.flatten(self.params, "params"), **tree.flatten(self.batch, "batch")}
        return frozenset(path for path, leaf in given.items() if is_complex(leaf))

    def matches(self, path: str, pattern: str) -> bool:
        """Whether a pattern names this leaf, or the complex one that it is a part of."""
        return any(fnmatchcase(name, pattern) for name in (path, whole(path, self.complex)))

    def paths_in(self, structure: Any, root: str) -> tuple[str, ...]:
        """The paths of the leaves of params or batch, or of something nested like them: two for a complex one."""
        return parts_of(tree.flatten(structure, root), self.complex)

    def _arrays(self, structure: Any, root: str) -> dict[str, Array]:
        found: dict[str, Array] = {}
        for path, leaf in tree.flatten(structure, root).items():
            parts = split(path, np.asarray(on_host(leaf))) if path in self.complex else {path: leaf}
            for part, x in parts.items():
                if part in found:
                    raise ProblemError(f"{root}: {path} is complex, and a part of it has the path {part!r}: rename one")
                found[part] = as_array(x, part)
        return found

    @property
    def weights(self) -> tuple[str, ...]:
        """The paths of the cotangent: one for each array that the loss returns."""
        return () if self.cotangent is None else tuple(tree.flatten({COTANGENT: self.cotangent}, COTANGENT))

    def cotangent_of(self, leaves: Mapping[str, Any]) -> Any:
        """The cotangent that holds these leaves, nested like the value that the loss returns."""
        return tree.rebuild({COTANGENT: self.cotangent}, leaves, COTANGENT)[COTANGENT]

    @cached_property
    def differentiated(self) -> tuple[str, ...]:
        """Paths of the leaves to differentiate by."""
        return self.paths_in(self.params, "params") if self.wrt is None else parts_of(self.wrt, self.complex)

    @cached_property
    def intentions(self) -> dict[str, Intention]:
        """`intended` by path."""
        found: dict[str, Intention] = {}
        for key, given in self.intended.items():
            pattern, intention = _intention(key, given)
            found |= {path: intention for path in self.differentiated if self.matches(path, pattern)}
        return found

    @cached_property
    def own_dtypes(self) -> tuple[str, ...]:
        """The dtypes in which the differentiated leaves were given, widest first; float64 for any other."""
        given = {**tree.flatten(self.params, "params"), **tree.flatten(self.batch, "batch")}
        found = {dtype_as_given(given[whole(path, self.complex)]) for path in self.differentiated}
        return tuple(name for name in DTYPES if name in found)

    @cached_property
    def graph(self) -> Graph:
        """The loss, traced. Raises TraceError if it cannot be, ProblemError if there is none."""
        if isinstance(self.loss, Graph):
            return self.loss
        if self.loss is None:
            raise ProblemError(f"{self.name!r} has no loss over gradwitness.ops: each candidate brings its own")
        weights = None if self.cotangent is None else self.cotangent_of(self.leaves)
        return trace(self.loss, self.params, self.batch, cotangent=weights)

    @cached_property
    def primals(self) -> dict[str, Array]:
        """The differentiated leaves by path."""
        return {path: self.leaves[path] for path in self.differentiated}

    def arguments(self, leaves: Mapping[str, Any]) -> tuple[Any, Any]:
        """(params, batch), as a loss takes them, that hold these leaves."""
        leaves = joined(leaves, self.complex) if self.complex else leaves
        return tree.rebuild(self.params, leaves, "params"), tree.rebuild(self.batch, leaves, "batch")

    def pullback_arguments(self, leaves: Mapping[str, Any]) -> tuple[Any, ...]:
        """The arguments of a gradient written by hand: (params, batch), and the cotangent if there is one."""
        weights = () if self.cotangent is None else (self.cotangent_of(leaves),)
        return (*self.arguments(leaves), *weights)

    def inputs(self, graph: Graph) -> dict[str, Array]:
        """The leaves that `graph` reads and that are not differentiated, by path, including its constants.

        Raises ProblemError if the graph reads a leaf that the problem lacks.
        """
        known = {**self.leaves, **graph.constants}
        unknown = [path for path in graph.leaves if path not in known]
        if unknown:
            raise ProblemError(
                f"the graph reads {', '.join(unknown)}, which {self.name!r} lacks; its leaves: {', '.join(known)}"
            )
        return {path: known[path] for path in graph.leaves if path not in self.differentiated}

    def rounded(self, dtype: str) -> Problem:
        """The same problem at the nearest point that `dtype` can hold; its arrays are still float64.

        Raises ProblemError if a value overflows in `dtype`.
        """

        def shift(leaf: Array) -> Array:
            if leaf.dtype.kind != "f":
                return leaf
            rounded = round_to(leaf, dtype)
            return leaf if np.array_equal(rounded, leaf) else frozen(rounded)

        moved = {path: shift(leaf) for path, leaf in self.leaves.items()}
        lost = [path for path, leaf in moved.items() if np.isfinite(self.leaves[path]).all() > np.isfinite(leaf).all()]
        if lost:
            raise ProblemError(f"{', '.join(lost)}: values overflow in {dtype}; scale them, or verify in a wider dtype")
        return self.at(moved)

    @cached_property
    def examples(self) -> int:
        """The number of examples: the first extent that most leaves of the batch have in common; 0 if there is none."""
        extents = Counter(len(self.leaves[path]) for path in self._batched)
        return extents.most_common(1)[0][0] if extents else 0

    def with_examples(self, kept: int) -> Problem:
        """The same problem with only its first examples. Differentiated leaves stay as they are."""
        return self._with({**self.leaves, **{path: self.leaves[path][:kept] for path in self.by_example}})

    def example(self, number: int) -> Problem:
        """The same problem with one of its examples alone, as a batch of one."""
        alone = {path: self.leaves[path][number : number + 1] for path in self.by_example}
        return self._with({**self.leaves, **alone})

    @property
    def by_example(self) -> tuple[str, ...]:
        """Paths of the leaves that hold an entry for each example, along their first axis."""
        paths = [*self._batched, *self.weights]
        return tuple(p for p in paths if self.leaves[p].ndim and len(self.leaves[p]) == self.examples)

    @property
    def may_be_cut(self) -> bool:
        """Whether an example may be left out: there are two or more, and nothing else has an extent as large."""
        return self.examples > 1 and bool(self.by_example) and not self.not_cut

    @property
    def not_cut(self) -> tuple[str, ...]:
        """Paths of leaves that have an extent as large as the number of examples, and are not cut with them: a kernel
        that loops over the one and reads the other would leave its memory."""
        cut = self.by_example
        return tuple(p for p, x in self.leaves.items() if p not in cut and self.examples in x.shape)

    @property
    def leaves_of_batch(self) -> tuple[str, ...]:
        """The paths of the leaves of batch."""
        return self.paths_in(self.batch, "batch")

    @property
    def _batched(self) -> list[str]:
        return [p for p in self.leaves_of_batch if p not in self.differentiated and self.leaves[p].ndim]

    def resized(self, leaves: Mapping[str, Array]) -> Problem:
        """The same problem with some leaves replaced, by path, by others that may have other shapes."""
        return self._with({**self.leaves, **leaves})

    def at(self, leaves: Mapping[str, Array]) -> Problem:
        """The same problem with some leaves replaced, by path."""
        moved = self._with({**self.leaves, **leaves})
        if self.loss is not None:
            moved.__dict__["graph"] = self.graph  # shapes are unchanged: no need to trace again
        return moved

    def _with(self, leaves: Mapping[str, Array]) -> Problem:
        params, batch = self.arguments(leaves)
        moved = replace(self, params=params, batch=batch)
        return moved if self.cotangent is None else replace(moved, cotangent=self.cotangent_of(leaves))


def dtype_as_given(leaf: Any) -> str:
    """The name under which NumPy, torch and jax alike print the dtype."""
    name = str(getattr(leaf, "dtype", "float64")).rpartition(".")[2]
    name = OF_PARTS.get(name, name)
    return name if name in DTYPES else "float64"


def as_array(leaf: Any, path: str) -> Array:
    """A leaf of any framework's, as float64, int64 or bool, that cannot be written to. Raises ProblemError."""
    try:
        array = np.asarray(on_host(leaf))
    except Exception as error:  # noqa: BLE001  # a leaf's own __array__ may raise anything
        raise ProblemError(f"{path}: cannot be read as an array: {error}") from None
    if isinstance(leaf, np.ma.MaskedArray):
        raise ProblemError(
            f"{path}: a masked array, whose mask no loss would see: give it filled, x.filled(0), and the mask by itself"
        )
    wide = WIDE.get(_kind(array.dtype))
    if hasattr(leaf, "named_parameters"):
        raise ProblemError(
            f"{path}: a module, which holds its parameters inside; take them out by `loss, params = "
            'gradwitness_torch.from_module(module, lambda module, batch: module(batch["x"]).mean())`'
        )
    if hasattr(leaf, "__next__"):
        raise ProblemError(
            f"{path}: got a {type(leaf).__name__}; give dict(module.named_parameters()), or a list of arrays"
        )
    if array.dtype.kind == "c":
        raise ProblemError(
            f"{path}: complex numbers: give them as a leaf of params or batch, in an array, np.array(...)"
        )
    if wide is None:
        raise ProblemError(
            f"{path}: expected an array of floats, integers or booleans, got {type(leaf).__name__} of dtype "
            f"{array.dtype}; if it is a setting and no data, let the loss close over it"
        )
    if array.dtype.kind == "u" and array.size and int(array.max()) > LARGEST:
        raise ProblemError(f"{path}: unsigned integers above 2**63 - 1, which int64 cannot hold")
    return frozen(array.astype(wide, copy=not _is_frozen(array)))


def _kind(dtype: np.dtype[Any]) -> str:
    """As of NumPy's own dtypes; those of ml_dtypes all say "V", as records do."""
    if dtype.kind != "V" or dtype.names:
        return dtype.kind
    import ml_dtypes

    for kind, told in (("f", ml_dtypes.finfo), ("i", ml_dtypes.iinfo)):
        try:
            told(dtype)
        except (TypeError, ValueError):
            continue
        return kind
    return "V"


def _is_frozen(array: Array) -> bool:
    """Whether nobody else can write to it either: a network of gigabytes is copied once, not at each step."""
    return bool(array.flags.owndata) and not array.flags.writeable


def on_host(leaf: Any) -> Any:
    """The leaf, where NumPy can read it: a tensor that is part of a tape, on a device or in bfloat16 it cannot."""
    if hasattr(leaf, "detach") and hasattr(leaf, "cpu"):
        leaf = leaf.detach().cpu()
        if is_complex(leaf):
            leaf = leaf.resolve_conj()
        return leaf.float() if dtype_as_given(leaf) == "bfloat16" else leaf
    return leaf


def _check(problem: Problem) -> None:
    if not (isinstance(problem.name, str) and problem.name.strip()):
        raise ProblemError(f"name: expected what the report calls the problem, a string, got {problem.name!r}")
    if problem.wrt is not None and not (
        isinstance(problem.wrt, tuple) and all(isinstance(x, str) for x in problem.wrt)
    ):
        raise ProblemError(f'wrt: expected the paths of leaves, as a tuple such as ("w",), got {problem.wrt!r}')
    leaves, params = problem.leaves, problem.paths_in(problem.params, "params")
    if problem.complex and problem.loss is not None:
        raise ProblemError(
            f"{', '.join(sorted(problem.complex))}: complex numbers, which gradwitness.ops has not: give the loss in "
            'torch or jax, {"torch": loss}, or the real and the imaginary part as two leaves'
        )
    if problem.wrt is None:
        for path in params:
            if leaves[path].dtype.kind != "f":
                raise ProblemError(
                    f"{path}: a parameter must be floating to be differentiated, got {leaves[path].dtype}. "
                    "Use array.astype(float), or put it into batch if it is data."
                )
    for path in problem.differentiated:
        if path not in leaves:
            raise ProblemError(f"wrt names {path!r}, which is not there; the leaves are: {', '.join(leaves)}")
        if leaves[path].dtype.kind != "f":
            raise ProblemError(f"{path}: wrt must name floating leaves, got {leaves[path].dtype}")
        bad = int(np.count_nonzero(~np.isfinite(leaves[path])))
        if bad:
            raise ProblemError(
                f"{path}: {bad} of {leaves[path].size} values are NaN or infinite; a gradient needs a finite point"
            )
    for path, array in leaves.items():
        if array.size == 0:
            mend = "leave it out: it has no gradient" if path in params else "give at least one example"
            raise ProblemError(f"{path}: no elements (shape {array.shape}); {mend}")
    _check_intended(problem)
    if not problem.differentiated:
        what = "params has no leaves" if problem.wrt is None else "wrt names no leaf"
        raise ProblemError(f"{what}: there is nothing to differentiate")


def _intention(key: str, given: Any) -> tuple[str, Intention]:
    """(the pattern of paths, what is intended there). Raises ProblemError for what says neither."""
    match = NAMED.fullmatch(key)
    pattern, where = (match["path"], match["where"]) if match else (key, "")
    elements = _indices(key, where) if match else None
    if isinstance(given, str):
        return pattern, Intention(given, None, elements, f"[{where}]")
    pair = given if isinstance(given, tuple | list) and len(given) == 2 else (None, None)
    reason, distance = pair
    if not (isinstance(reason, str) and isinstance(distance, int | float) and 0 < distance < 1):
        raise ProblemError(
            f"intended: {key!r} needs a reason, or (reason, distance) with a distance between 0 and 1, as part of the "
            f'gradient\'s norm, such as ("continuous adjoint", 1e-4); got {given!r}'
        )
    return pattern, Intention(reason, float(distance), elements, f"[{where}]")


def _indices(key: str, where: str) -> tuple[int | slice, ...]:
    try:
        return tuple(_index(part) for part in where.split(","))
    except (TypeError, ValueError):
        raise ProblemError(
            f"intended: {key!r} names no elements: give an index for each axis, such as [0], [1:3] or [0, :]"
        ) from None


def _index(part: str) -> int | slice:
    numbers = [int(text) if text.strip() else None for text in part.split(":")]
    return slice(*numbers) if ":" in part else int(part)


def _check_intended(problem: Problem) -> None:
    if not isinstance(problem.intended, Mapping) or not all(isinstance(key, str) for key in problem.intended):
        raise ProblemError(
            'intended: expected the leaves by path, each with the reason, such as {"w": "straight-through"}, got '
            f"{problem.intended!r}"
        )
    for key, given in problem.intended.items():
        pattern, intention = _intention(key, given)
        for path in (
            p for p in problem.differentiated if problem.matches(p, pattern) and intention.elements is not None
        ):
            shape = problem.leaves[path].shape
            try:
                named = problem.leaves[path][intention.elements]
            except (IndexError, ValueError) as error:  # out of bounds, a step of zero
                raise ProblemError(f"intended names {key!r}, but {error}; {path} has shape {shape}") from None
            if named.size == 0:  # a slice beyond the end is no error in Python
                raise ProblemError(f"intended names {key!r}, but no element is there; {path} has shape {shape}")
        if not any(problem.matches(path, pattern) for path in problem.differentiated):
            raise ProblemError(
                f"intended names {key!r}, which no differentiated leaf matches: {', '.join(problem.differentiated)}"
            )
    if problem.intended and problem.loss is not None:
        raise ProblemError(
            "intended is for losses in a framework's own arrays; one over gradwitness.ops says by stop_gradient "
            "which way no derivative goes"
        )
