"""What the lowering rules read off the graph: formats, quantized operands, constants."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax

from tvm_passes.errors import LoweringError
from tvm_passes.numerics import INT_RANGE, Rescale
from tvm_passes.ops.base import TensorSpec, config_of, operator_of
from tvm_passes.ops.qdq import along_axis
from tvm_passes.rewrite import Scope

VIEWS = ("relax.reshape", "relax.permute_dims", "relax.strided_slice")

Float = NDArray[np.float64]
Int = NDArray[np.int64]


@dataclass(frozen=True)
class Format:
    """Target of a ``quantize``: scale and zero point, range and dtype of the codes.

    Attributes:
        scale: of the tensor; the greatest where channels have their own.
        zero_point: of the tensor.
        qmin: least code.
        qmax: greatest code.
        dtype: of the codes.
        name: of the tensor.
        channels: scales of the channels, 1-D, where they differ.
    """

    scale: float
    zero_point: int
    qmin: int
    qmax: int
    dtype: str
    name: str
    channels: Float | None = None

    def multiplier(self, scale: Float | float) -> Rescale:
        """``scale``, one or that of every channel, over that of the target, for ``rescale``."""
        target = self.scale if self.channels is None else self.channels
        try:
            return Rescale.from_real(np.asarray(scale, np.float64) / target)
        except ValueError as error:
            raise LoweringError(f"{self.name}: cannot requantize, {error}") from error


@dataclass(frozen=True)
class Quantized:
    """A tensor in codes: ``value = (codes - zero_point) * scale + offset``.

    Attributes:
        codes: integer tensor expression.
        scale: scalar, or of the rank of the codes, where it has extent 1 along the axes that it
            does not vary along.
        zero_point: likewise.
        offset: added to every value; only AdaLog codes with a shift have one.
    """

    codes: relax.Expr
    scale: Float
    zero_point: Int
    offset: float = 0.0

    @property
    def spec(self) -> TensorSpec:
        """Shape and dtype of the codes."""
        return TensorSpec.of(self.codes)

    def scalar(self, name: str) -> tuple[float, int]:
        """Scale and zero point of a per-tensor format.

        Raises:
            LoweringError: the tensor has a scale per channel or an offset.
        """
        if self.scale.ndim or self.zero_point.ndim or self.offset:
            raise LoweringError(f"{name}: an operand needs one scale for the whole tensor")
        return float(self.scale), int(self.zero_point)

    def along(self, axis: int, name: str) -> tuple[Float, int]:
        """Scales along one axis, [] or [extent], and the zero point.

        Raises:
            LoweringError: scales vary along another axis, or zero points at all.
        """
        others = np.delete(self.scale.shape, axis) if self.scale.ndim else np.ones(0)
        if self.zero_point.ndim or np.any(others != 1):
            raise LoweringError(
                f"{name}: an operand of shape {list(self.spec.shape)} with scales of shape "
                f"{list(self.scale.shape)} and zero points of shape {list(self.zero_point.shape)}: "
                f"scales may vary along axis {axis} only, zero points along none"
            )
        return (self.scale.ravel() if self.scale.ndim else self.scale), int(self.zero_point)


def array_of(expr: relax.Expr) -> NDArray[Any] | None:
    """The value of a constant expression, or None."""
    if isinstance(expr, tvm.ir.GenericConst):
        value: NDArray[Any] = expr.value.numpy()
        return value
    return None


def constant_of(scope: Scope, expr: relax.Expr) -> NDArray[Any] | None:
    """Like ``array_of``, through variables and reshapes."""
    producer = scope.producer(expr)
    value = array_of(producer)
    if value is None and is_call(producer, "relax.reshape"):
        inner = constant_of(scope, producer.args[0])
        return None if inner is None else inner.reshape(TensorSpec.of(producer).shape)
    return value


def is_call(expr: relax.Expr, name: str) -> bool:
    """Whether ``expr`` calls operator ``name`` (full name)."""
    return isinstance(expr, relax.Call) and getattr(expr.op, "name", None) == name


def is_integer_call(expr: relax.Expr, name: str) -> bool:
    """Whether ``expr`` calls ``R.pocketvit.<name>``."""
    operator = operator_of(expr)
    return operator is not None and operator.name == name


def origin(scope: Scope, expr: relax.Expr) -> relax.Expr:
    """What a tensor is computed by, seen through views."""
    producer = scope.producer(expr)
    while any(is_call(producer, name) for name in VIEWS):
        producer = scope.producer(producer.args[0])
    return producer


def code_range(scope: Scope, x: Quantized) -> tuple[int, int]:
    """Least and greatest code that a tensor can have, as far as its producer tells."""
    producer = origin(scope, x.codes)
    low, high = INT_RANGE[x.spec.dtype]
    if is_integer_call(producer, "lut"):
        table = array_of(producer.args[1])
        return (low, high) if table is None else (int(table.min()), int(table.max()))
    config = None if operator_of(producer) is None else config_of(producer)
    if getattr(config, "raw", False):  # accumulators of a product
        return low, high
    return getattr(config, "qmin", low), getattr(config, "qmax", high)


def output_format(call: relax.Call, channel_axis: int | None = None) -> Format:
    """The format that a ``quantize`` call asks for.

    Args:
        call: of ``quantize``.
        channel_axis: the one along which scales may vary, if there is one.

    Raises:
        LoweringError: scales vary along another axis, or zero points at all.
    """
    config = config_of(call)
    scale, zero_point = array_of(call.args[1]), array_of(call.args[2])
    if scale is None or zero_point is None or np.unique(zero_point).size != 1:
        raise LoweringError(f"{config.name}: an operator's output needs one constant zero point")
    varies = np.unique(scale).size != 1
    if varies and config.axis != channel_axis:
        raise LoweringError(f"{config.name}: an operator's output needs one constant scale")
    return Format(
        float(scale.max()),
        int(zero_point.flat[0]),
        config.qmin,
        config.qmax,
        config.dtype,
        config.name,
        scale.astype(np.float64) if varies else None,
    )


def one_scale(conversion: relax.Call) -> float:
    """Scale of a conversion to or from logarithmic or twin codes.

    Raises:
        LoweringError: it is not one constant.
    """
    scale = array_of(conversion.args[1])
    if scale is None or scale.size != 1:
        raise LoweringError("logarithmic and twin codes need one constant scale")
    return float(scale.reshape(()))


def quantized(scope: Scope, expr: relax.Expr) -> Quantized | None:
    """``expr`` as codes if it is the result of a uniform ``dequantize``."""
    call = scope.producer(expr)
    if not is_integer_call(call, "dequantize"):
        return None
    scale, zero_point = array_of(call.args[1]), array_of(call.args[2])
    if scale is None or zero_point is None:
        return None
    axis, rank = config_of(call).axis, len(TensorSpec.of(call.args[0]).shape)
    scale, zero_point = (compressed(along_axis(each, axis, rank)) for each in (scale, zero_point))
    return Quantized(call.args[0], scale.astype(np.float64), zero_point.astype(np.int64))


def compressed(values: NDArray[Any]) -> NDArray[Any]:
    """Values that broadcast against a tensor, without the axes along which they are constant.

    Those have extent 1; of one value nothing is left but a scalar.
    """
    for axis in range(values.ndim):
        first = values.take([0], axis)
        values = first if np.all(values == first) else values
    return values.reshape(()) if values.size == 1 else values
