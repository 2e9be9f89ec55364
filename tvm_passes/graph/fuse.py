"""Fuse what follows a product into its kernel: activations, residual sums, changes of format, pads.

An element-wise operator joins the product before it when nobody else reads what lies between, and
when its other operands are known by then: tensors of the same size, one value per channel, or
scalars.
"""

from math import prod

from tvm import relax

from tvm_passes.graph.views import is_view
from tvm_passes.ops.base import TensorSpec, call, config_of, encode, operator_of
from tvm_passes.ops.fused import FusedConfig, Step
from tvm_passes.rewrite import Scope

PRODUCTS = frozenset({"linear", "conv2d"})
UNARY = frozenset({"lut", "pwl", "pwl8", "requantize", "adalog_quantize", "twin"})
GATED = frozenset({"dynamic_relu"})  # a map and, per channel, what the rest makes of it
BINARY = frozenset({"add", "scaled_add", "mul"})
CHANNELWISE = frozenset({"scale_channels", "requantize_channels"})


def fuse_epilogue(scope: Scope, expr: relax.Call) -> relax.Expr | None:
    """Rule of the fusion pass; see the module."""
    operator = operator_of(expr)
    if operator is None:
        return None
    if operator.name == "pad":
        return _fuse_pad(scope, expr)
    if operator.name in UNARY | CHANNELWISE | GATED:
        return _fuse(scope, expr, 0)
    if operator.name in BINARY:
        for position in range(2):
            fused = _fuse(scope, expr, position)
            if fused is not None:
                return fused
    return None


def _fuse(scope: Scope, expr: relax.Call, position: int) -> relax.Expr | None:
    """Append ``expr`` to the product that computes its operand ``position``."""
    out = TensorSpec.of(scope.builder.normalize(expr))
    source = _product(scope, expr.args[position], out)
    if source is None:
        return None
    product = scope.producer(source)
    shape = TensorSpec.of(source).shape
    is_binary = operator_name(expr) in BINARY  # the others read tables and factors as they are
    others: list[relax.Expr] = []
    for index, argument in enumerate(expr.args[:-1]):
        if index == position:
            continue
        spec = TensorSpec.of(argument)
        per_channel = spec.shape[-1:] == out.shape[-1:] == (prod(spec.shape),)
        fits = per_channel or prod(spec.shape) in (1, prod(out.shape))
        table = index > 0 and operator_name(expr) in UNARY
        if not fits and not table:
            return None
        if is_binary and prod(spec.shape) == prod(out.shape) and spec.shape != shape:
            argument = scope.emit(relax.op.reshape(argument, shape))
        others.append(argument)
    fused = _append(product, expr, position, others)
    if shape == out.shape:
        return fused
    inner = scope.emit(fused)
    scope.uses[inner] = 1
    return relax.op.reshape(inner, out.shape)


def _fuse_pad(scope: Scope, expr: relax.Call) -> relax.Expr | None:
    """Let the product store into the padded map."""
    source = _product(scope, expr.args[0], TensorSpec.of(expr.args[0]))
    if source is None or TensorSpec.of(source).shape != TensorSpec.of(expr.args[0]).shape:
        return None
    return _append(scope.producer(source), expr, 0, [])


def operator_name(expr: relax.Call) -> str:
    """Short name of an integer operator's call."""
    operator = operator_of(expr)
    assert operator is not None
    return operator.name


def _product(scope: Scope, expr: relax.Expr, out: TensorSpec) -> relax.Expr | None:
    """The product under reshapes of ``expr`` that nobody else reads and that may grow."""
    while isinstance(expr, relax.Var) and scope.uses.get(expr) == 1:
        producer = scope.producer(expr)
        operator = operator_of(producer)
        if operator is None:
            if is_view(producer) and producer.op.name == "relax.reshape":
                expr = producer.args[0]
                continue
            return None
        same = prod(TensorSpec.of(expr).shape) == prod(out.shape)
        last = TensorSpec.of(expr).shape[-1:] == out.shape[-1:]
        return expr if same and last and _may_grow(producer, operator.name) else None
    return None


def _may_grow(product: relax.Call, name: str) -> bool:
    if name == "fused":
        steps = config_of(product).steps
        return bool(steps[-1].operator != "pad")
    if name == "conv2d":
        groups, channels = config_of(product).groups, TensorSpec.of(product.args[0]).shape[-1]
        return bool(groups == 1 or groups % channels == 0)
    return name in PRODUCTS


def _append(
    product: relax.Call, expr: relax.Call, position: int, others: list[relax.Expr]
) -> relax.Call:
    """A fused call of ``product`` and then ``expr`` on its result."""
    arguments = list(product.args[:-1])
    name = operator_name(product)
    if name == "fused":
        steps = config_of(product).steps
    else:
        steps = (Step(name, encode(config_of(product)), tuple(range(len(arguments)))),)
    count = len(arguments) + len(others)
    # results are counted after the arguments, of which there are more now
    moved = tuple(
        Step(
            step.operator,
            step.config,
            tuple(index + len(others) * (index >= len(arguments)) for index in step.inputs),
        )
        for step in steps
    )
    inputs = list(range(len(arguments), count))
    inputs.insert(position, count + len(steps) - 1)
    last = Step(operator_name(expr), encode(config_of(expr)), tuple(inputs))
    return call("fused", FusedConfig((*moved, last)), *arguments, *others)
