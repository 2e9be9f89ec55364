"""The micro-kernel for int16 codes where products are of bytes.

A code is cut in its high and its low byte, two pixels as it were, that meet the same weights::

    sum(x w) = 256 sum(high w) + sum(low w)

The bytes of a block of register tiles are put side by side once, in a buffer of their own, and
serve all panels of channels. Sums wrap around at ``2^32``, so that the whole is exact wherever it
fits an int32, whatever its two parts do.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_passes.kernels.builder import int32, load, splat, store
from tvm_passes.kernels.dot import flip_signs, join_planes, split_planes
from tvm_passes.kernels.fixed_point import widen
from tvm_passes.kernels.gemm_micro import MicroKernel
from tvm_passes.kernels.gemm_mmla import MmlaMicroKernel
from tvm_passes.kernels.gemm_tile import Access, GemmSchedule, uses_matrix
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.loops import vector_loop

LANES = {"avx512": 64, "neon": 16}  # codes that are cut at once


def planes_offset(isa: Isa) -> int:
    """What is added to a code before it is cut, so that both bytes fit the dot product's operand.

    It makes the low byte signed for ``sdot`` and ``smmla``, the high one unsigned for ``vpdpbusd``.
    """
    return 1 << 15 if isa.dot == "vpdpbusd" else -128


class PlanesMicroKernel:
    """Emits sums of products for register tiles of int16 codes."""

    def __init__(
        self, access: Access, isa: Isa, x: Buffer, weights: Buffer, schedule: GemmSchedule
    ) -> None:
        """Set the kernel up; inside the loop over blocks, because it allocates their buffer.

        Args:
            access: how the implicit matrix lies in the input.
            isa: instruction set with a dot product.
            x: input.
            weights: packed by ``pack_weights``.
            schedule: as for the other micro-kernels.
        """
        self.access, self.isa, self.x, self.rows = access, isa, x, schedule.rows
        self.dtype = "uint8" if isa.dot == "vpdpbusd" else "int8"
        depth, length = access.depth, access.run_length
        self.tile_bytes = 2 * self.rows * depth
        self.bytes = T.alloc_buffer((schedule.block * self.tile_bytes,), self.dtype)
        plane = Access(1, 2 * self.rows, 0, depth, access.runs, 1, 0, length, length)
        self.product: MicroKernel | MmlaMicroKernel
        if uses_matrix(plane, self.dtype, isa):
            doubled = replace(schedule, rows=2 * self.rows)
            self.product = MmlaMicroKernel(plane, False, self.bytes, weights, doubled)
        else:
            self.product = MicroKernel(plane, self.dtype, isa, self.bytes, weights, schedule.unroll)

    def prepare(self, tile: Expr, start: Expr) -> None:
        """Cut the codes of a tile.

        Args:
            tile: its number in the block.
            start: flat offset of its first pixel's receptive field.
        """
        access, first = self.access, tile * self.tile_bytes
        length, inner = access.run_length, access.inner_runs
        with T.serial(0, access.runs // inner) as outer_run:
            with T.serial(0, inner) as inner_run:
                source = start + outer_run * access.run_stride + inner_run * access.inner_stride
                target = first + (outer_run * inner + inner_run) * length
                for row in range(self.rows):
                    at = source + row * access.column_stride, target + 2 * row * access.depth
                    vector_loop(length, LANES[self.isa.simd or ""], partial(self._cut, *at))
        if isinstance(self.product, MmlaMicroKernel):
            self.product.prepare(tile, first)

    def _cut(self, source: Expr, target: Expr, offset: Expr, width: int) -> None:
        code = T.bind(load(self.x, source + offset, width))
        for part, plane in enumerate(split_planes(code)):
            if self.dtype == "uint8":
                plane = flip_signs(widen(plane, "uint8"))
            store(self.bytes, target + part * self.access.depth + offset, plane, width)

    def multiply(
        self, biases: Sequence[Sequence[Expr]], tile: Expr, start: Expr, panel: Expr
    ) -> list[list[Expr]]:
        """Accumulators of a tile; see ``MicroKernel.multiply``."""
        del start
        zero = [splat(int32(0), self.isa.lanes)] * len(biases[0])
        both = [each for bias in biases for each in (zero, bias)]
        sums = self.product.multiply(both, tile, tile * self.tile_bytes, panel)
        return [
            [T.bind(widen(join_planes(*parts), "int32")) for parts in zip(high, low, strict=True)]
            for high, low in zip(sums[::2], sums[1::2], strict=True)
        ]
