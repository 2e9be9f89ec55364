"""The micro-kernel of ``linear`` and ``conv2d``: the product of one register tile."""

from collections.abc import Sequence

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_passes.kernels.builder import Accumulators, int32, join, load, splat
from tvm_passes.kernels.dot import WORD, flip_signs, sdot, vpdpbusd
from tvm_passes.kernels.fixed_point import widen
from tvm_passes.kernels.gemm_tile import Access, group_starts, input_offset, uses_dot
from tvm_passes.kernels.isa import Isa


class MicroKernel:
    """Emits sums of products for register tiles, on scalar broadcasts or by a dot product."""

    def __init__(
        self, access: Access, x_dtype: str, isa: Isa, x: Buffer, weights: Buffer, unroll: int
    ) -> None:
        """Set the kernel up.

        Args:
            access: how the implicit matrix lies in the input.
            x_dtype: int8, uint8 or int16.
            isa: instruction set.
            x: input.
            weights: packed by ``pack_weights``.
            unroll: steps of a run in one turn of its loop.
        """
        self.access, self.isa, self.x, self.weights = access, isa, x, weights
        self.unroll = unroll
        self.dot = uses_dot(x_dtype, isa)
        self.flip = bool(input_offset(x_dtype, isa))
        self.width = WORD if self.dot else 1
        self.starts = group_starts(access.run_length, self.width)

    def multiply(
        self, biases: Sequence[Sequence[Expr]], tile: Expr, start: Expr, panel: Expr
    ) -> list[list[Expr]]:
        """Accumulators of a tile, vectors of channels of each pixel.

        Args:
            biases: what they start from.
            tile: its number in the block.
            start: flat offset of the first pixel's receptive field; the others lie
                ``column_stride`` apart.
            panel: flat offset of the panel's weights.
        """
        del tile
        access, rows, vectors = self.access, len(biases), len(biases[0])
        acc = Accumulators(rows * vectors, self.isa.lanes)
        for row in range(rows):
            for v in range(vectors):
                acc[row * vectors + v] = biases[row][v]
        inner = access.inner_runs
        cell = vectors * self.isa.lanes * self.width
        with T.serial(0, access.runs // inner) as outer_run:
            with T.serial(0, inner) as inner_run:
                run = outer_run * inner + inner_run
                first = start + outer_run * access.run_stride + inner_run * access.inner_stride
                weights = panel + run * (len(self.starts) * cell)
                self._run(acc, first, weights, rows, vectors)
        return [[acc[row * vectors + v] for v in range(vectors)] for row in range(rows)]

    def prepare(self, tile: Expr, start: Expr) -> None:
        """Nothing: codes are used as they lie."""

    def _run(self, acc: Accumulators, first: Expr, weights: Expr, rows: int, vectors: int) -> None:
        cell = vectors * self.isa.lanes * self.width
        # NEON multiplies by one lane of a register: load as many groups at a time as fit
        done = 0
        for groups in (4, 2, 1) if self.dot and self.isa.dot == "sdot" else (1,):
            for unroll in (self.unroll, 1) if self.unroll > 1 else (1,):
                regular = self.access.run_length // self.width - done
                turn = groups * unroll
                count = regular // turn
                if count:
                    start, base = first + done * self.width, weights + done * cell
                    with T.serial(0, count) as k:
                        for step in range(0, turn, groups):
                            group = k * turn + step
                            self._step(
                                *(acc, start + group * self.width, base + group * cell),
                                *(rows, vectors, groups),
                            )
                done += count * turn
        for group in range(done, len(self.starts)):
            code = first + self.starts[group]
            self._step(acc, code, weights + group * cell, rows, vectors, 1)

    def _step(
        self, acc: Accumulators, start: Expr, weights: Expr, rows: int, vectors: int, groups: int
    ) -> None:
        """``groups`` groups of codes of every row times their weights."""
        stride = self.access.column_stride
        codes = [self._codes(start + row * stride, groups) for row in range(rows)]
        lanes = self.isa.lanes * self.width
        for group in range(groups):
            cells = [
                T.bind(load(self.weights, weights + (group * vectors + v) * lanes, lanes))
                for v in range(vectors)
            ]
            if not self.dot:
                cells = [T.bind(widen(cell, "int16")) for cell in cells]
            for row in range(rows):
                for v in range(vectors):
                    index = row * vectors + v
                    acc[index] = self._multiply_add(acc[index], codes[row], group, cells[v])

    def _codes(self, start: Expr, groups: int) -> Expr:
        """The groups of one row, as ``_multiply_add`` wants them."""
        if not self.dot:
            return T.bind(splat(self.x[start].astype("int16"), self.isa.lanes))
        if self.access.run_length < WORD:  # never read past the run
            word = int32(0)
            for position in range(self.access.run_length):
                byte = self.x[start + position].astype("int32") & int32(0xFF)
                word = word | (byte << int32(8 * position))
        elif groups == 1:
            word = T.reinterpret("int32", load(self.x, start, WORD))
        else:
            codes = load(self.x, start, groups * WORD)
            quad = join([codes] * (4 // groups))
            words = T.reinterpret("int32x4", quad)
            return T.bind(flip_signs(words) if self.flip else words)
        return T.bind(splat(flip_signs(word) if self.flip else word, self.isa.lanes))

    def _multiply_add(self, acc: Expr, codes: Expr, group: int, cell: Expr) -> Expr:
        if not self.dot:
            return acc + widen(codes, "int32") * widen(cell, "int32")
        if self.isa.dot == "vpdpbusd":
            return vpdpbusd(acc, codes, cell)
        return sdot(acc, cell, tirx.Shuffle([codes], [int32(group)] * self.isa.lanes))
