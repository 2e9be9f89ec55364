"""Questions about a canonical graph: what an operator is, who reads a tensor, where it came from.

Views (reshape, permute, slice, ...) are transparent: they carry the number format of their input.
"""

from collections.abc import Iterator, Mapping
from math import inf, prod
from typing import Any, NamedTuple

import torch
from torch import fx

from pipeline.operators import DYNAMIC_RELU

_aten = torch.ops.aten

PAD = _aten.constant_pad_nd.default
REPEAT = _aten.repeat.default
VIEWS = frozenset(
    {
        PAD,
        _aten.reshape.default,
        _aten.permute.default,
        _aten.slice.Tensor,
        _aten.select.int,
        _aten.roll.default,
        REPEAT,
    }
)
CONV = _aten.conv2d.default
LINEAR = _aten.linear.default
MATMUL = _aten.matmul.default
WEIGHTED = frozenset({CONV, LINEAR})
GEMMS = frozenset({CONV, LINEAR, MATMUL})
ADD = _aten.add.Tensor
MUL = _aten.mul.Tensor
CAT = _aten.cat.default
SOFTMAX = _aten.softmax.int
MOST_TOKENS, WIDEST_TOKEN = 8, 512  # of a layer over tokens; 512 * 127 * 2^15 < 2^31
GELU = _aten.gelu.default
NORMS = frozenset({_aten.layer_norm.default, _aten.group_norm.default})
MEAN = _aten.mean.dim
POOLS = frozenset({MEAN, _aten.avg_pool2d.default})
RESIZE = _aten.upsample_bilinear2d.vec
CLAMPS = frozenset({_aten.relu.default, _aten.hardtanh.default})
CURVES: Mapping[object, tuple[float, float]] = {
    GELU: (-5.0, inf),
    _aten.silu.default: (-12.0, inf),
    _aten.hardswish.default: (-3.0, inf),
    _aten.hardsigmoid.default: (-3.0, 3.0),
    _aten.sigmoid.default: (-10.0, 10.0),
    DYNAMIC_RELU: (-inf, inf),
}
"""Non-linearities, and the range beyond which they change by less than 1e-4."""


def operands(node: fx.Node) -> tuple[fx.Node, fx.Node]:
    """The two tensor operands of an add, mul or matmul.

    Raises:
        TypeError: an operand is a Python number; canonical graphs have tensors only.
    """
    left, right = node.args[:2]
    if not (isinstance(left, fx.Node) and isinstance(right, fx.Node)):
        raise TypeError(f"{node.name} has an operand that is not a tensor")
    return left, right


def input_of(node: fx.Node) -> fx.Node:
    """The first tensor that `node` reads (its data, for a convolution or a view)."""
    return node.all_input_nodes[0]


def is_constant(node: fx.Node) -> bool:
    """Whether the node is a stored tensor."""
    return node.op == "get_attr"


def has_constant(node: fx.Node) -> bool:
    """Whether one of the two operands of an add or mul is a stored tensor."""
    return any(map(is_constant, operands(node)))


def is_constant_add(node: fx.Node) -> bool:
    """An add of a stored tensor: bias map, attention mask, position embedding."""
    return node.target is ADD and has_constant(node) and not is_channel_factor(node)


def is_sum(node: fx.Node) -> bool:
    """An add of two computed tensors."""
    return node.target is ADD and not has_constant(node)


def is_scaling(node: fx.Node) -> bool:
    """A multiplication by a constant that belongs to the one sum that reads it."""
    if is_channel_factor(node):
        return False
    if node.target is not MUL or not has_constant(node) or len(node.users) != 1:
        return False
    return next(iter(node.users)).target is ADD


def is_affine(node: fx.Node) -> bool:
    """The constants of a normalization, where no weights have taken them in."""
    return is_constant_add(node) and any(
        is_scaling(n) and input_of(n).target in NORMS for n in operands(node)
    )


def is_token_linear(node: fx.Node) -> bool:
    """A linear layer over a few tokens, so narrow that sums over 16-bit inputs fit int32."""
    if node.target is not LINEAR:
        return False
    *rows, width = node.args[0].meta["val"].shape  # type: ignore[union-attr]
    is_last = any(reader.op == "output" for reader in consumers(node))
    return prod(rows) <= MOST_TOKENS and width <= WIDEST_TOKEN and not is_last


def is_channel_factor(node: fx.Node) -> bool:
    """A factor or shift per channel between a tensor and the products that read it.

    Equalization puts it there; the products' weights hold the inverse.
    """
    if node.target not in (MUL, ADD) or not has_constant(node):
        return False
    return CHANNEL_FACTOR in node.meta or STREAM_FACTOR in node.meta


CHANNEL_FACTOR = "channel_factor"
"""Metadata of the nodes that equalization inserts."""

STREAM_FACTOR = "stream_factor"
"""Metadata of the two factors around an 8-bit residual stream: `stored` or `restored`."""


def is_pointwise_conv(node: fx.Node) -> bool:
    """A dense 1x1 convolution of stride 1 without padding."""
    if node.target is not CONV:
        return False
    weight = node.args[1]
    assert isinstance(weight, fx.Node)
    window = conv_window(node)
    unit: bool = set(weight.meta["val"].shape[2:]) == {1} == set(window.stride)
    return unit and set(window.padding) == {0} and window.groups == 1


class ConvWindow(NamedTuple):
    """How a convolution walks over its input; `(vertical, horizontal)`."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


def conv_window(node: fx.Node) -> ConvWindow:
    """Settings of a convolution, those included that are left out because they are the default."""
    given: list[Any] = list(node.args[3:])
    *lists, groups = given + [[1], [0], [1], 1][len(given) :]
    stride, padding, dilation = ((one[0], one[-1]) for one in lists)
    return ConvWindow(stride, padding, dilation, groups)


def source(node: fx.Node) -> fx.Node:
    """The producer of a tensor, looking back through views."""
    while node.target in VIEWS:
        node = input_of(node)
    return node


def origin(node: fx.Node) -> fx.Node:
    """Like `source`, looking back through adds of constants too."""
    node = source(node)
    while is_constant_add(node):
        left, right = operands(node)
        node = source(right if is_constant(left) else left)
    return node


def consumers(node: fx.Node) -> list[fx.Node]:
    """Every operator that reads the tensor, looking through views, `is_scaling` and
    `is_channel_factor`."""
    return list(_consumers(node))


def _consumers(node: fx.Node) -> Iterator[fx.Node]:
    for user in node.users:
        if user.target in VIEWS or is_scaling(user) or is_channel_factor(user):
            yield from _consumers(user)
        else:
            yield user


def module_path(node: fx.Node) -> str:
    """Where in the PyTorch model the operator came from, for messages."""
    return str(node.meta.get("module_path") or node.name)
