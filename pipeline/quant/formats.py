"""The table that gives every role its number format under a recipe."""

from pipeline.quant.quantizers import Format
from pipeline.quant.quantizers.logarithmic import ADALOG, GELU_SHIFT, Logarithmic
from pipeline.quant.quantizers.twin import Twin
from pipeline.quant.quantizers.uniform import Uniform
from pipeline.quant.recipe import Recipe
from pipeline.quant.roles import Role

IMAGE = Uniform("uint8", 0, 255, fixed=(1.0, 0))
INT16 = Uniform("int16", -32768, 32767, symmetric=True)
SOFTMAX_INT16 = Uniform("int16", 0, 32767, fixed=(2.0**-15, 0))
GATE = Uniform("int16", 0, 32767, fixed=(2.0**-15, 0))
SOFTMAX_INT8 = Uniform("int8", -128, 127, fixed=(1 / 256, -128))
# Scale and codes of the logits follow from the last linear's accumulator; see `insert.py`.
OUTPUT = Uniform("int32", -(2**31) + 1, 2**31 - 1, symmetric=True)

ATTENTION_OPERANDS = frozenset({Role.Q, Role.K, Role.V, Role.OPERAND})

_LARGEST_SUM = 2**30
"""Bound of sums of products with 8-bit weights: half of an accumulator, the rest is for biases."""


def int8(bits: int, symmetric: bool = False) -> Uniform:
    """Signed codes of up to 8 bits.

    Symmetric codes leave out the lowest one: two products of operands in [-127, 127] fit int16.
    """
    half = 2 ** (bits - 1)
    return Uniform("int8", 1 - half if symmetric else -half, half - 1, symmetric)


def int16(depth: int) -> Uniform:
    """Symmetric codes of 16 bits for products with 8-bit weights.

    Long sums get fewer codes, so that no accumulator can overflow: 2^14.4 at a depth of 768.

    Args:
        depth: products that are added up.
    """
    top = min(2**15 - 1, _LARGEST_SUM // (127 * depth))
    return Uniform("int16", -top, top, symmetric=True)


def operand(role: Role, recipe: Recipe, bits: int, depth: int = 1) -> Uniform:
    """The uniform format of `bits` bits in which a product reads a tensor of this role.

    Operands of attention have 8 bits at most, and are symmetric where a zero point would cost a
    correction: at 8 bits, and where every head would have its own.

    Args:
        role: of the tensor.
        recipe: formats.
        bits: 2 to 8, or 16.
        depth: products that are added up; matters at 16 bits.
    """
    of_attention = role in ATTENTION_OPERANDS
    if bits > 8 and not of_attention:
        return int16(depth)
    bits = min(bits, 8)
    costly = bits == 8 or (recipe.activations.per_head and not recipe.paper)
    return int8(bits, recipe.activations.symmetric or (of_attention and costly))


def format_of(role: Role, recipe: Recipe, bits: int, depth: int = 1) -> Format | None:
    """The format of a role's tensors under a recipe; None for tensors that are never stored.

    Args:
        role: of the tensor.
        recipe: formats and bits.
        bits: of the tensors whose width the recipe's activations define.
        depth: of the deepest product that reads the tensor; matters at 16 bits.
    """
    fixed: dict[Role, Format | None] = {
        Role.FUSED: None,
        Role.IMAGE: IMAGE,
        Role.OUTPUT: OUTPUT,
        # Over pixels a mean weight is one step of 8 bits; head mixers subtract near-equal ones.
        Role.SOFTMAX_MIXED: SOFTMAX_INT16,
        Role.LOGITS: _8_or_16(recipe.logits_bits),
        Role.GATE: GATE,
        Role.TOKEN: _8_or_16(recipe.token_bits),
        Role.PREACT: _8_or_16(recipe.preact_bits),
        Role.RESIDUAL: _8_or_16(recipe.residual_bits),
        Role.NORMALIZED: _8_or_16(recipe.residual_bits),
        Role.STREAM: INT16,
        Role.BRANCH: _8_or_16(recipe.branch_bits),
    }
    if role in fixed:
        return fixed[role]
    if role is Role.SOFTMAX:
        return _softmax(recipe, recipe.softmax.bits or min(bits, 8))
    if role is Role.POST_GELU and bits <= 8:
        return _post_gelu(recipe, bits)
    return operand(role, recipe, bits, depth)


def _8_or_16(bits: int) -> Uniform:
    return INT16 if bits == 16 else int8(8)


def _softmax(recipe: Recipe, bits: int) -> Format:
    match recipe.softmax.format:
        case "int16":
            return SOFTMAX_INT16
        case "int8":
            return SOFTMAX_INT8
        case "uniform":
            return int8(bits)
        case "log2":
            return Logarithmic(bits, 1, 1, fixed_scale=1.0, published=recipe.paper)
        case "log-sqrt2":
            return Logarithmic(bits, 1, 2, fixed_scale=1.0, published=recipe.paper)
        case "adalog":
            q = recipe.softmax.fixed_q
            return Logarithmic(bits, q, ADALOG, fixed_scale=1.0, published=recipe.paper)
        case "twin":
            return Twin(bits, signed=False, published=recipe.paper)


def _post_gelu(recipe: Recipe, bits: int) -> Format:
    match recipe.post_gelu.format:
        case "adalog":
            q = recipe.post_gelu.fixed_q
            return Logarithmic(bits, q, ADALOG, GELU_SHIFT, published=recipe.paper)
        case "twin":
            return Twin(bits, signed=True)
        case "uniform":
            return int8(bits, recipe.activations.symmetric)
