"""Number formats, and the table that gives every role its format under a recipe."""

from dataclasses import dataclass

from pipeline.quant.adalog import GELU_SHIFT
from pipeline.quant.recipe import Recipe
from pipeline.quant.roles import Role


@dataclass(frozen=True)
class Uniform:
    """Uniform codes: `value = (code - zero_point) * scale`.

    Attributes:
        dtype: storage, a key of `pipeline.quant.ops.DTYPES`.
        qmin: smallest code.
        qmax: largest code.
        symmetric: zero point 0, so that no product needs a correction at run time.
        fixed: scale and zero point, where the format itself fixes them.
    """

    dtype: str
    qmin: int
    qmax: int
    symmetric: bool = False
    fixed: tuple[float, int] | None = None

    @property
    def bits(self) -> int:
        """Bits that hold all codes."""
        return (self.qmax - self.qmin).bit_length()

    def __str__(self) -> str:
        """Short name for summaries."""
        return f"{self.dtype}, {self.bits} bits" if self.bits % 8 else self.dtype


@dataclass(frozen=True)
class AdaLog:
    """Logarithmic codes (`pipeline.quant.adalog`).

    Attributes:
        bits: width of a code, stored in uint8.
        q: exponent numerator of the base; None to search it.
        shift: added before the logarithm.
        fixed_scale: value of code 0, where it needs no calibration.
    """

    bits: int
    q: int | None
    shift: float = 0.0
    fixed_scale: float | None = None

    def __str__(self) -> str:
        """Short name for summaries."""
        return f"adalog, {self.bits} bits"


Format = Uniform | AdaLog

IMAGE = Uniform("uint8", 0, 255, fixed=(1.0, 0))
INT16 = Uniform("int16", -32768, 32767, symmetric=True)
SOFTMAX_INT16 = Uniform("int16", 0, 32767, fixed=(2.0**-15, 0))
SOFTMAX_INT8 = Uniform("int8", -128, 127, fixed=(1 / 256, -128))
# Scale and codes of the logits follow from the last linear's accumulator; see `insert.py`.
OUTPUT = Uniform("int32", -(2**31) + 1, 2**31 - 1, symmetric=True)

_ATTENTION_OPERANDS = frozenset({Role.Q, Role.K, Role.V, Role.OPERAND})


def int8(bits: int, symmetric: bool = False) -> Uniform:
    """Signed codes of up to 8 bits.

    Symmetric codes leave out the lowest one: two products of operands in [-127, 127] fit int16.
    """
    half = 2 ** (bits - 1)
    return Uniform("int8", 1 - half if symmetric else -half, half - 1, symmetric)


def format_of(role: Role, recipe: Recipe) -> Format | None:
    """The format of a role's tensors under a recipe; None for tensors that are never stored."""
    fixed: dict[Role, Format | None] = {
        Role.FUSED: None,
        Role.IMAGE: IMAGE,
        Role.OUTPUT: OUTPUT,
        Role.SOFTMAX: _softmax(recipe),
        # Over pixels a mean weight is one step of 8 bits; head mixers subtract near-equal ones.
        Role.SOFTMAX_MIXED: SOFTMAX_INT16,
        Role.POST_GELU: _post_gelu(recipe),
        Role.LOGITS: _8_or_16(recipe.logits_bits),
        Role.PREACT: _8_or_16(recipe.preact_bits),
        Role.RESIDUAL: _8_or_16(recipe.residual_bits),
        Role.BRANCH: _8_or_16(recipe.branch_bits),
    }
    if role in fixed:
        return fixed[role]
    return int8(recipe.activations.bits, symmetric=role in _ATTENTION_OPERANDS)


def gemm_input(recipe: Recipe, symmetric: bool) -> Uniform:
    """The format of the 8-bit copy of a 16-bit tensor that a matrix product reads."""
    return int8(recipe.activations.bits, symmetric)


def _8_or_16(bits: int) -> Uniform:
    return INT16 if bits == 16 else int8(8)


def _softmax(recipe: Recipe) -> Format:
    if recipe.softmax.format == "adalog":
        return AdaLog(recipe.softmax.bits, recipe.softmax.fixed_q, fixed_scale=1.0)
    return SOFTMAX_INT8 if recipe.softmax.format == "int8" else SOFTMAX_INT16


def _post_gelu(recipe: Recipe) -> Format:
    if recipe.post_gelu.format == "adalog":
        return AdaLog(recipe.post_gelu.bits, recipe.post_gelu.fixed_q, shift=GELU_SHIFT)
    return int8(recipe.activations.bits)
