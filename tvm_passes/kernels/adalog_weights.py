"""The weights of ``adalog_attention``: from a row of logits to codes, and through their table."""

import numpy as np
from numpy.typing import NDArray
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_passes.kernels.attention_weights import CodeSum, DistanceFactor, LogitRow
from tvm_passes.kernels.builder import int32, lanes_of, splat
from tvm_passes.kernels.fixed_point import (
    clamp,
    constant,
    narrow,
    requantize,
    rescale,
    rounding_shift_narrow,
    saturate,
    saturating_subtract,
    widen,
)
from tvm_passes.kernels.functions import exp2_codes, held, log2
from tvm_passes.kernels.heads import filled, of_head
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.tables import lookup_codes
from tvm_passes.ops.adalog_attention import AdaLogAttentionConfig

ENTRIES = 256


def pack_table(table: NDArray[np.int16], isa: Isa) -> NDArray[np.int8] | NDArray[np.int16]:
    """The table in two planes of int8 whose weighted sum it is, where the kernel multiplies bytes.

    Args:
        table: int16 [256], of at most 32639.
        isa: instruction set.

    Returns:
        int8 [512], first the plane of weight 256; or the table itself.
    """
    if not isa.dot:
        return table
    high = (table.astype(np.int32) + 128) >> 8
    return np.concatenate([high, table.astype(np.int32) - (high << 8)]).astype(np.int8)


class AdaLogWeights:
    """Weights by a table from codes that are normalised already."""

    base = 0  # see ``UniformWeights``

    def __init__(
        self, config: AdaLogAttentionConfig, head: Expr, table: Buffer, counted: bool, isa: Isa
    ) -> None:
        """Set the weights up.

        Args:
            config: the operator's.
            head: number of the head.
            table: packed by ``pack_table``.
            counted: whether the sum of the weights is needed.
            isa: instruction set.
        """
        self.config, self.table, self.counted, self.isa = config, table, counted, isa
        self.octaves = DistanceFactor.of(config.right, config.left, config.logit_multiplier, head)
        steps = config.code_right, config.code_left, config.code_multiplier
        self.steps = DistanceFactor.of(*steps, head)
        self.multiplier = of_head(config.multiplier, head)
        self.total = CodeSum(isa)

    def emit(self, line: LogitRow) -> Expr:
        """Write the weights of one query; return their sum, int32, or 0 where it is not needed."""
        config, isa = self.config, self.isa

        def add(offset: Expr, distance: Expr) -> None:
            del offset
            weights = exp2_codes(T.bind(self.octaves.steps(distance, isa)), isa)
            self.total.add(T.bind(weights))

        self.total.clear()
        line.for_distances(add)
        first = self._first_step(self.total.get())

        def use(offset: Expr, distance: Expr) -> None:
            fine = T.bind(self.steps.steps(distance, isa))
            fine = T.bind(saturating_subtract(splat(first, lanes_of(fine)), fine))
            code = rounding_shift_narrow(fine, config.fraction_bits, "uint8", isa)
            line.put(offset, self._weights(T.bind(clamp(code, 0, config.code_max, "uint8"))))

        if self.counted:
            self.total.clear()
        line.for_distances(use)
        return self.total.get() if self.counted else int32(0)

    def finish(self, value: Expr, row: Expr) -> Expr:
        """Output codes of int32 sums of one query."""
        del row
        config = self.config
        value = rescale(value, filled(self.multiplier, value), 0, self.isa)
        return saturate(value, config.qmin, config.qmax, config.dtype, config.zero_point)

    def _first_step(self, total: Expr) -> Expr:
        """Step of the greatest logit of a row with this sum of ``exp2_codes``, int16."""
        config = self.config
        octaves = held(log2(total, self.isa) + int32(config.log_offset))
        multiplier, shift = int32(config.log_multiplier), int32(config.log_shift)
        return held(narrow(requantize(octaves, multiplier, shift, 0, self.isa), "int16"))

    def _weights(self, code: Expr) -> list[Expr]:
        """Every plane of the weights of uint8 codes."""
        isa = self.isa
        if not isa.dot:
            weights = T.bind(self.table[widen(code, "int32")])
            if self.counted:
                self.total.add(weights)
            return [weights]
        reached = next(size for size in (64, 128, 256) if self.config.code_max < size)
        high, low = (
            T.bind(lookup_codes(self.table, code, isa, start, reached)) for start in (0, ENTRIES)
        )
        if self.counted:
            eight = constant(8, code, "int16")
            whole = (widen(high, "int16") << eight) + widen(low, "int16")
            self.total.add(T.bind(whole))
        return [high, low]
