"""What each tensor of a canonical graph is for, read from its structure and never from names.

The role decides the number format (`formats.py`), the observer and the line in the summary.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from torch import fx

from pipeline.operators import DYNAMIC_RELU
from pipeline.quant import walk

LONGEST_ROW = 1024
"""Keys of attention whose weights are stored; of more, a mean weight is below 32 steps of 15 bits.

The compiler weighs the values of longer rows before it divides by the sum of the weights.
"""


class Role(StrEnum):
    """Roles of tensors. A `FUSED` tensor lives in registers or int32 accumulators only."""

    IMAGE = "image"
    CONV_OUT = "conv_out"
    LINEAR_OUT = "linear_out"
    LN_OUT = "ln_out"
    NORMALIZED = "normalized"  # before the constants of a normalization
    OPERAND = "operand"  # of a matmul, when it is several of q, k, v at once, or none of them
    Q = "q"
    K = "k"
    V = "v"
    LOGITS = "logits"  # softmax inputs that are stored (talking heads, softmax over pixels)
    SOFTMAX = "softmax"  # between the two matmuls of attention
    SOFTMAX_MIXED = "softmax_mixed"  # any other: over pixels, beside talking heads
    MIXED_HEADS = "mixed_heads"  # softmax after a talking-heads convolution
    ATTENTION_OUT = "attention_out"
    PREACT = "preact"
    ACT_OUT = "act_out"
    TOKEN = "token"  # of a linear layer over a few tokens, or of a product that such a layer reads
    GATE = "gate"  # of a dynamic ReLU
    POST_GELU = "post_gelu"  # GELU read by one linear or 1x1 convolution only
    RESIDUAL = "residual"
    STREAM = "stream"  # the residual stream in front of and behind the factors around 8 bits
    BRANCH = "branch"  # what a block adds to the residual stream
    SUM = "sum"  # an add that only matrix products read
    POOL = "pool"
    RESIZE = "resize"
    MUL = "mul"
    CAT = "cat"
    OUTPUT = "output"
    FUSED = "fused"
    GEMM_IN = "gemm_in"  # the 8-bit copy of a 16-bit tensor that a matrix product reads


@dataclass(frozen=True)
class RoleTable:
    """Roles of all tensors of one graph, and the two special sets of weights.

    Attributes:
        tensors: node name -> role, for every node that is neither a view nor a constant.
        stem: names of the convolutions that read the image.
        head: names of the linears that produce the logits.
        heads_mixers: names of talking-heads convolutions; they read 16-bit codes.
    """

    tensors: Mapping[str, Role]
    stem: frozenset[str]
    head: frozenset[str]
    heads_mixers: frozenset[str]


def resolve_roles(graph: fx.Graph) -> RoleTable:
    """Assign a role to every tensor of a canonical graph."""
    nodes = [n for n in graph.nodes if n.op in ("placeholder", "call_function")]
    nodes = [n for n in nodes if n.target not in walk.VIEWS]
    tensors = {node.name: role_of(node) for node in nodes}
    weighted = [n for n in nodes if n.target in walk.WEIGHTED]
    return RoleTable(
        tensors=MappingProxyType(tensors),
        stem=frozenset(n.name for n in weighted if _is_image(walk.source(walk.input_of(n)))),
        head=frozenset(n.name for n in weighted if tensors[n.name] is Role.OUTPUT),
        heads_mixers=frozenset(n.name for n in weighted if _mixes_heads(n)),
    )


def role_of(node: fx.Node) -> Role:
    """The role of one tensor, by its producer and its consumers."""
    if (part := node.meta.get(walk.STREAM_FACTOR)) is not None:
        return Role.RESIDUAL if part == "stored" else Role.STREAM
    if any(walk.STREAM_FACTOR in user.meta for user in node.users):
        return Role.STREAM
    if walk.is_channel_factor(node):
        return _factor_role(node)
    if _is_equalized(node):
        return Role.FUSED
    return _role_without_factors(node)


def _role_without_factors(node: fx.Node) -> Role:
    if _is_image(node):
        return Role.IMAGE
    if _is_fused(node):
        return Role.FUSED
    if _is_output(node):
        return Role.OUTPUT
    if node.target is walk.SOFTMAX:
        return _softmax_role(node)
    if all(_is_gate(node, reader) for reader in walk.consumers(node)):
        return Role.GATE
    if _on_tokens(node):
        return Role.TOKEN
    if node.target in walk.CURVES:
        return _matmul_operand(node) or (Role.POST_GELU if _is_post_gelu(node) else Role.ACT_OUT)
    if _mixes_heads(node) and walk.origin(walk.input_of(node)).target is walk.SOFTMAX:
        return Role.MIXED_HEADS
    if _feeds_stored_softmax(node):
        return Role.LOGITS
    return _matmul_operand(node) or _plain_role(node)


def _is_equalized(node: fx.Node) -> bool:
    """Whether only factors per channel read the tensor, so that it is stored behind them."""
    return bool(node.users) and all(map(walk.is_channel_factor, node.users))


def _factor_role(node: fx.Node) -> Role:
    """The role of the tensor in front, or that of a copy for products if others read it too."""
    if _is_equalized(node):
        return Role.FUSED
    while walk.is_channel_factor(node):
        node = next(n for n in walk.operands(node) if not walk.is_constant(n))
        if not _is_equalized(node):
            return Role.GEMM_IN
    return _role_without_factors(node)


_ROLE_OF_TARGET: dict[object, Role] = {
    walk.CONV: Role.CONV_OUT,
    walk.LINEAR: Role.LINEAR_OUT,
    walk.MATMUL: Role.ATTENTION_OUT,
    walk.MUL: Role.MUL,
    walk.CAT: Role.CAT,
    walk.RESIZE: Role.RESIZE,
    **dict.fromkeys(walk.NORMS, Role.LN_OUT),
    **dict.fromkeys(walk.POOLS, Role.POOL),
    **dict.fromkeys(walk.CLAMPS, Role.ACT_OUT),
}


_STREAM_TARGETS = walk.WEIGHTED | {walk.ADD, walk.CAT, walk.RESIZE}
_BEFORE_CURVE = walk.GEMMS | {walk.ADD, walk.RESIZE, walk.MEAN}


def _plain_role(node: fx.Node) -> Role:
    readers = walk.consumers(node)
    if node.target in _BEFORE_CURVE and all(r.target in walk.CURVES for r in readers):
        return Role.PREACT
    if node.target in walk.NORMS and all(map(walk.is_affine, readers)):
        return Role.NORMALIZED
    is_product = node.target in walk.GEMMS or _carries_bias_map(node)
    if is_product and len(readers) == 1 and walk.is_sum(readers[0]):
        return Role.BRANCH
    if _on_residual_stream(node):
        return Role.RESIDUAL
    if node.target is walk.ADD:
        return Role.CONV_OUT if _carries_bias_map(node) else Role.SUM
    return _ROLE_OF_TARGET[node.target]


def _is_gate(node: fx.Node, reader: fx.Node) -> bool:
    if reader.target is not DYNAMIC_RELU:
        return False
    return any(walk.source(gate) is node for gate in reader.all_input_nodes[1:])


def _on_tokens(node: fx.Node) -> bool:
    """Whether narrow layers over a few tokens, and element-wise operators before them, read it."""
    if node.target in (*walk.NORMS, walk.ADD, walk.CAT, walk.LINEAR, walk.CONV):
        return False
    return all(
        walk.is_token_linear(r) or (r.target is walk.MUL and _on_tokens(r))
        for r in walk.consumers(node)
    )


def _is_image(node: fx.Node) -> bool:
    return node.op == "placeholder"


def _is_output(node: fx.Node) -> bool:
    readers = walk.consumers(node)
    return node.target is walk.LINEAR and any(r.op == "output" for r in readers)


def _is_fused(node: fx.Node) -> bool:
    """Whether the next operator consumes the value before it is stored."""
    if walk.is_scaling(node):
        return True
    if node.target is walk.MATMUL or (
        walk.is_constant_add(node) and walk.origin(node).target is walk.MATMUL
    ):
        readers = walk.consumers(node)
        return _feeds_softmax(node) or (
            all(map(walk.is_constant_add, readers)) and _feeds_heads_mixer(node)
        )
    if len(node.users) != 1:
        return False
    reader = next(iter(node.users))
    if node.target is walk.CONV and walk.is_constant_add(reader):
        return True
    is_product = node.target in walk.WEIGHTED or _carries_bias_map(node)
    return is_product and reader.target in walk.CLAMPS


def _feeds_softmax(node: fx.Node) -> bool:
    """Whether softmax is all that reads the tensor, masks and biases in between allowed."""
    readers = walk.consumers(node)
    return bool(readers) and all(
        r.target is walk.SOFTMAX or (walk.is_constant_add(r) and _feeds_softmax(r)) for r in readers
    )


def _feeds_heads_mixer(node: fx.Node) -> bool:
    readers = walk.consumers(node)
    return bool(readers) and all(
        _mixes_heads(r) or (walk.is_constant_add(r) and _feeds_heads_mixer(r)) for r in readers
    )


def _feeds_stored_softmax(node: fx.Node) -> bool:
    return any(r.target is walk.SOFTMAX for r in walk.consumers(node)) or (
        walk.origin(node).target is walk.MATMUL and _feeds_heads_mixer(node)
    )


def _mixes_heads(node: fx.Node) -> bool:
    """A 1x1 convolution over heads, before or after attention's softmax ("talking heads")."""
    if not walk.is_pointwise_conv(node):
        return False
    before = walk.origin(walk.input_of(node)).target
    if before is walk.MATMUL:
        return _feeds_softmax(node)
    readers = walk.consumers(node)
    return before is walk.SOFTMAX and all(
        r.target is walk.MATMUL or walk.is_constant_add(r) for r in readers
    )


def _softmax_role(node: fx.Node) -> Role:
    readers = walk.consumers(node)
    is_left = all(
        r.target is walk.MATMUL and walk.source(walk.operands(r)[0]) is node for r in readers
    )
    is_attention = walk.origin(walk.input_of(node)).target is walk.MATMUL
    if not is_left or not is_attention:
        return Role.SOFTMAX_MIXED
    return Role.FUSED if node.meta["val"].shape[-1] > LONGEST_ROW else Role.SOFTMAX


def _is_post_gelu(node: fx.Node) -> bool:
    readers = walk.consumers(node)
    if node.target is not walk.GELU or len(readers) != 1:
        return False
    # The shift of the format becomes a bias, which holds only where every product is taken:
    # padding, by a convolution or by a view, would insert values without the shift.
    reader = readers[0]
    return not _is_padded(walk.input_of(reader)) and (
        reader.target is walk.LINEAR or walk.is_pointwise_conv(reader)
    )


def _is_padded(tensor: fx.Node) -> bool:
    while tensor.target in walk.VIEWS:
        if tensor.target is walk.PAD:
            return True
        tensor = walk.input_of(tensor)
    return False


def _matmul_operand(node: fx.Node) -> Role | None:
    """The part the tensor plays in matmuls, if matrix products are all that read it."""
    readers = walk.consumers(node)
    if not all(r.target in walk.GEMMS for r in readers):
        return None
    parts = {_part_in(node, r) for r in readers if r.target is walk.MATMUL}
    if not parts:
        return None
    return parts.pop() if len(parts) == 1 else Role.OPERAND


def _part_in(node: fx.Node, matmul: fx.Node) -> Role:
    left, right = map(walk.source, walk.operands(matmul))
    if _feeds_softmax(matmul) or _feeds_heads_mixer(matmul):
        return Role.Q if left is node else Role.K
    weights_values = left.target is walk.SOFTMAX or _mixes_heads(walk.origin(left))
    return Role.V if weights_values and right is node else Role.OPERAND


def _carries_bias_map(node: fx.Node) -> bool:
    """Whether the node adds a constant to a convolution that nothing else reads."""
    return walk.is_constant_add(node) and any(
        n.target is walk.CONV and len(n.users) == 1 for n in walk.operands(node)
    )


def _on_residual_stream(node: fx.Node) -> bool:
    """Whether later blocks add to the tensor, or what it becomes by constants and concatenation."""
    readers = walk.consumers(node)
    if walk.is_sum(node) or (walk.is_constant_add(node) and not _carries_bias_map(node)):
        return any(r.target not in walk.GEMMS for r in readers)
    if node.target not in _STREAM_TARGETS:
        return False
    if len(readers) > 1 and any(map(walk.is_sum, readers)):
        return True
    return bool(readers) and all(
        (walk.is_constant_add(r) or r.target is walk.CAT) and _on_residual_stream(r)
        for r in readers
    )
