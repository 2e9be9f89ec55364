"""The weights of ``uniform_attention``: from a row of logits to codes of the format's steps."""

from dataclasses import replace

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T

from tvm_passes.kernels.attention_weights import CodeSum, DistanceFactor, LogitRow
from tvm_passes.kernels.builder import int32, lanes_of, splat
from tvm_passes.kernels.fixed_point import (
    clamp,
    constant,
    mulhi,
    rescale,
    rounding_shift_narrow,
    saturate,
    widen,
)
from tvm_passes.kernels.functions import exp2_codes, held
from tvm_passes.kernels.heads import filled, of_head, shifted_left
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.panel import Rows
from tvm_passes.ops.attention import INVERSE_BITS
from tvm_passes.ops.uniform_attention import (
    FRACTION_BITS,
    UniformAttentionConfig,
    fine_shift,
)


class UniformWeights:
    """Weights ``exp2_codes``, divided by their sum and rounded to codes, in one plane.

    Attributes:
        base: what the stored codes are less by, so that they fit int8.
    """

    def __init__(
        self,
        config: UniformAttentionConfig,
        head: Expr,
        counted: bool,
        shape: tuple[int, int],
        isa: Isa,
    ) -> None:
        """Set the weights up.

        Args:
            config: the operator's.
            head: number of the head.
            counted: whether the sum of the codes is needed.
            shape: number of queries of which something is kept, and length of their rows.
            isa: instruction set.
        """
        self.config, self.isa = config, isa
        self.counted = counted or config.zero_v != 0
        self.base = 128 if isa.dot and config.code_max > 127 else 0
        self.octaves = DistanceFactor.of(config.right, config.left, config.logit_multiplier, head)
        self.multiplier = of_head(config.multiplier, head)
        self.total = CodeSum(isa)
        rows, padded = shape
        self.shift = T.alloc_buffer((rows,), "int32")
        self.weights = Rows(T.alloc_buffer((Rows.size(1, padded),), "int32"), 1)

    def emit(self, line: LogitRow) -> Expr:
        """Write the codes of one query; return their sum, int32, or 0 where it is not needed."""
        config, isa = self.config, self.isa
        inverse = self._inverse(line)

        def use(offset: Expr, fine: Expr) -> None:
            value = T.bind(mulhi(fine, splat(inverse, lanes_of(fine)), isa))
            code = rounding_shift_narrow(value, FRACTION_BITS, "int16", isa)
            code = T.bind(clamp(code, -(2**15), config.code_max, "int16"))
            if self.counted:
                self.total.add(code)
            stored = code - constant(self.base, code, "int16") if self.base else code
            line.put(offset, [widen(stored, "int8") if isa.dot else stored])

        if self.counted:
            self.total.clear()
        replace(line, logits=self.weights, row=int32(0)).for_logits(use)
        total = self.total.get() if self.counted else int32(0)
        if config.zero_v:
            T.buffer_store(self.shift, total * int32(config.zero_v), [line.row])
        return total

    def finish(self, value: Expr, row: Expr) -> Expr:
        """Output codes of int32 sums of one query."""
        config = self.config
        if config.zero_v:
            value = value - splat(self.shift[row], lanes_of(value))
        value = rescale(value, filled(self.multiplier, value), 0, self.isa)
        return saturate(value, config.qmin, config.qmax, config.dtype, config.zero_point)

    def _inverse(self, line: LogitRow) -> Expr:
        """Write the weights of one query; return the inverse of their sum in steps, int32."""
        config, isa = self.config, self.isa
        self.total.clear()

        def weigh(offset: Expr, distance: Expr) -> None:
            weights = T.bind(exp2_codes(T.bind(self.octaves.steps(distance, isa)), isa))
            self.total.add(weights)
            wide = widen(weights, "int32")
            self.weights.put(0, offset, T.bind(wide << constant(fine_shift(config), wide)))

        line.for_distances(weigh)
        total = self.total.get().astype("int64")
        scale = shifted_left(config.code_multiplier, INVERSE_BITS)
        return held(tirx.truncdiv(scale, total).astype("int32"))
