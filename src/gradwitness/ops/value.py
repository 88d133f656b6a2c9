"""What flows through a traced loss: a `Value`, which knows its shape and dtype but holds no numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

__all__ = ["BOOL", "FLOAT", "INT", "Builder", "Operand", "Spec", "Value"]

# A graph is written once and run in float64, float32 or bfloat16, so its floats have no width.
FLOAT, INT, BOOL = "float", "int", "bool"

# A traced value, an array, or a Python scalar: whatever a user may write as an operand.
Operand: TypeAlias = Any


@dataclass(frozen=True)
class Spec:
    """Shape and kind (`"float"`, `"int"` or `"bool"`) of an array, without its contents."""

    shape: tuple[int, ...]
    dtype: str = FLOAT

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        size = 1
        for extent in self.shape:
            size *= extent
        return size

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


class Builder(Protocol):
    """Whoever records the application of an op: the tracer of `gradwitness.graph`."""

    def apply(self, op: str, operands: Sequence[Operand], attributes: Mapping[str, Any]) -> Any: ...


class Value:
    """A value of a traced loss. Arithmetic, comparison, indexing and a few methods record ops."""

    __slots__ = ("builder", "node", "spec")
    __array_priority__ = 1000  # numpy_array * value must reach Value.__rmul__
    __array_ufunc__ = None
    __hash__ = None  # type: ignore[assignment]  # == records an op, so a Value cannot be a key

    def __init__(self, builder: Builder, node: Any, spec: Spec) -> None:
        self.builder, self.node, self.spec = builder, node, spec

    @property
    def shape(self) -> tuple[int, ...]:
        return self.spec.shape

    @property
    def dtype(self) -> str:
        """`"float"`, `"int"` or `"bool"`."""
        return self.spec.dtype

    @property
    def ndim(self) -> int:
        return self.spec.ndim

    @property
    def size(self) -> int:
        return self.spec.size

    def __repr__(self) -> str:
        return f"Value({self.spec})"

    def __bool__(self) -> bool:
        from gradwitness.errors import TraceError

        raise TraceError(
            "the truth of a traced value is not known while tracing: it has a shape, no numbers. "
            "Use ops.where for a choice that depends on values; choose on shapes or Python numbers."
        )

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a scalar value")
        return self.shape[0]

    def __iter__(self) -> Iterator[Value]:
        return (self[i] for i in range(len(self)))

    def _apply(self, op: str, *operands: Operand, **attributes: Any) -> Value:
        result: Value = self.builder.apply(op, operands, attributes)  # of ops that have one result
        return result

    # The ignores: object's == and != give a bool, these record an op.
    # fmt: off
    def __add__(self, other: Operand) -> Value: return self._apply("add", self, other)
    def __radd__(self, other: Operand) -> Value: return self._apply("add", other, self)
    def __sub__(self, other: Operand) -> Value: return self._apply("subtract", self, other)
    def __rsub__(self, other: Operand) -> Value: return self._apply("subtract", other, self)
    def __mul__(self, other: Operand) -> Value: return self._apply("multiply", self, other)
    def __rmul__(self, other: Operand) -> Value: return self._apply("multiply", other, self)
    def __truediv__(self, other: Operand) -> Value: return self._apply("divide", self, other)
    def __rtruediv__(self, other: Operand) -> Value: return self._apply("divide", other, self)
    def __pow__(self, other: Operand) -> Value: return self._apply("power", self, other)
    def __rpow__(self, other: Operand) -> Value: return self._apply("power", other, self)
    def __matmul__(self, other: Operand) -> Value: return self._apply("matmul", self, other)
    def __rmatmul__(self, other: Operand) -> Value: return self._apply("matmul", other, self)
    def __neg__(self) -> Value: return self._apply("negative", self)
    def __abs__(self) -> Value: return self._apply("abs", self)
    def __lt__(self, other: Operand) -> Value: return self._apply("less", self, other)
    def __le__(self, other: Operand) -> Value: return self._apply("less_equal", self, other)
    def __gt__(self, other: Operand) -> Value: return self._apply("greater", self, other)
    def __ge__(self, other: Operand) -> Value: return self._apply("greater_equal", self, other)
    def __eq__(self, other: Operand) -> Value: return self._apply("equal", self, other)  # type: ignore[override]
    def __ne__(self, other: Operand) -> Value: return self._apply("not_equal", self, other)  # type: ignore[override]
    # fmt: on

    def __getitem__(self, key: Any) -> Value:
        if isinstance(key, Value) or (hasattr(key, "dtype") and getattr(key, "ndim", 0) > 0):
            return self._apply("take", self, key, axis=0)
        return self._apply("index", self, key=key)

    @property
    def T(self) -> Value:
        """The transpose: all axes reversed."""
        return self._apply("transpose", self, axes=None)

    def reshape(self, *shape: int | tuple[int, ...]) -> Value:
        """`x.reshape(2, 3)` or `x.reshape((2, 3))`; one extent may be -1."""
        flat = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple) else shape
        return self._apply("reshape", self, shape=flat)

    def sum(self, axis: int | tuple[int, ...] | None = None, *, keepdims: bool = False) -> Value:
        return self._apply("sum", self, axis=axis, keepdims=keepdims)

    def mean(self, axis: int | tuple[int, ...] | None = None, *, keepdims: bool = False) -> Value:
        return self._apply("mean", self, axis=axis, keepdims=keepdims)
