"""The micro-kernel of ``linear`` and ``conv2d``: the product of one register tile."""

from collections.abc import Sequence

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_passes.kernels.builder import Accumulators, int32, load, splat
from tvm_passes.kernels.epilogue import store_channels
from tvm_passes.kernels.fixed_point import widen
from tvm_passes.kernels.gemm_tile import Access, Tile, input_offset, uses_dot
from tvm_passes.kernels.isa import Isa
from tvm_passes.ops.gemm import Conv2dConfig, LinearConfig

SIGN_FLIP = -0x7F7F7F80  # 0x80808080: xor turns four s8 into u8 plus 128, and back


def step(table: tuple[int, ...], index: Expr) -> Expr:
    """``table[index]`` as a chain of comparisons, for tables with few steps."""
    value = int32(table[0])
    for position in range(1, len(table)):
        if table[position] != table[position - 1]:
            value = tirx.Select(index >= position, int32(table[position]), value)
    return value


class MicroKernel:
    """Emits the product of one register tile."""

    def __init__(
        self,
        access: Access,
        channels: int,
        x_dtype: str,
        config: LinearConfig,
        isa: Isa,
        buffers: Sequence[Buffer],
    ) -> None:
        """Set the kernel up.

        Args:
            access: how the implicit matrix lies in the input.
            channels: output channels.
            x_dtype: int8, uint8 or int16.
            config: output format.
            isa: instruction set.
            buffers: input, weights, bias, multiplier and shift as packed, output; all flat.
        """
        self.access, self.channels, self.config, self.isa = access, channels, config, isa
        self.x, self.w, self.bias, self.multiplier, self.shift, self.out = buffers
        self.x_dtype = x_dtype
        self.dot = uses_dot(x_dtype, isa)
        self.depth = 4 if self.dot else 1
        self.groups = -(-access.run_length // self.depth)
        self.padded = -(-channels // isa.lanes) * isa.lanes

    def emit(
        self,
        row: Expr | int,
        column: Expr | int,
        tile: Tile,
        panel_start: Expr,
        first_block: Expr,
        tail: int,
    ) -> None:
        """One tile: ``tile.rows`` pixels from (row, column), blocks from ``first_block``.

        ``tail`` is the number of valid lanes of the last block, 0 if it is full.
        """
        lanes, access = self.isa.lanes, self.access
        acc = Accumulators(tile.rows * tile.vectors, lanes)
        for r in range(tile.rows):
            bias_row = self._bias_row(row, column + r)
            for v in range(tile.vectors):
                start = bias_row * self.padded + (first_block + v) * lanes
                acc[r * tile.vectors + v] = load(self.bias, start, lanes)
        base = row * access.row_stride + column * access.column_stride
        inner = access.inner_runs
        with T.serial(0, access.runs // inner) as outer_run:
            with T.serial(0, inner) as inner_run:
                run = outer_run * inner + inner_run
                start = base + outer_run * access.run_stride + inner_run * access.inner_stride
                weights = panel_start + run * (self.groups * self.depth * tile.vectors * lanes)
                self._run(acc, start, weights, tile)
        for r in range(tile.rows):
            pixel = row * access.columns + column + r
            for v in range(tile.vectors):
                block = first_block + v
                last = v == tile.vectors - 1
                store_channels(
                    self.out,
                    pixel * self.channels + block * lanes,
                    acc[r * tile.vectors + v],
                    block * lanes,
                    lanes,
                    tail if last and tail else lanes,
                    (self.multiplier, self.shift),
                    self.config,
                    self.isa,
                )

    def _bias_row(self, row: Expr | int, column: Expr | int) -> Expr | int:
        config = self.config
        if not isinstance(config, Conv2dConfig) or not config.row_classes:
            return 0
        width = max(config.column_classes) + 1
        return step(config.row_classes, row) * width + step(config.column_classes, column)

    def _run(self, acc: Accumulators, start: Expr, weights: Expr, tile: Tile) -> None:
        whole, rest = divmod(self.access.run_length, self.depth)
        size = self.depth * tile.vectors * self.isa.lanes
        if whole:
            with T.serial(0, whole) as k:
                self._step(acc, start + k * self.depth, weights + k * size, tile, self.depth)
        if rest:
            self._step(acc, start + whole * self.depth, weights + whole * size, tile, rest)

    def _step(self, acc: Accumulators, start: Expr, weights: Expr, tile: Tile, valid: int) -> None:
        """``depth`` codes of every row times one group of weights."""
        lanes = self.isa.lanes
        cells = [
            T.bind(load(self.w, weights + v * lanes * self.depth, lanes * self.depth))
            for v in range(tile.vectors)
        ]
        if not self.dot:
            cells = [T.bind(widen(cell, "int16")) for cell in cells]
        for r in range(tile.rows):
            code = T.bind(self._codes(start + r * self.access.column_stride, valid))
            for v in range(tile.vectors):
                index = r * tile.vectors + v
                acc[index] = self._multiply_add(acc[index], code, cells[v])

    def _codes(self, start: Expr, valid: int) -> Expr:
        """The codes of one row in every lane, as the multiplication wants them."""
        lanes = self.isa.lanes
        if not self.dot:
            return splat(self.x[start].astype("int16"), lanes)
        if valid == self.depth:
            word = T.reinterpret("int32", load(self.x, start, 4))
        else:  # a short tail: never read past the run
            word = int32(0)
            for position in range(valid):
                byte = self.x[start + position].astype("int32") & int32(0xFF)
                word = word | (byte << int32(8 * position))
        if input_offset(self.x_dtype, self.isa):
            word = word ^ int32(SIGN_FLIP)
        return splat(word, lanes)

    def _multiply_add(self, acc: Expr, code: Expr, cell: Expr) -> Expr:
        lanes = self.isa.lanes
        if self.isa.dot == "vpdpbusd" and self.dot:
            return tirx.call_llvm_pure_intrin(
                f"int32x{lanes}",
                "llvm.x86.avx512.vpdpbusd.512",
                acc,
                T.reinterpret(f"uint8x{lanes * 4}", code),
                cell,
            )
        if self.isa.dot == "sdot" and self.dot:
            return tirx.call_llvm_pure_intrin(
                f"int32x{lanes}",
                "llvm.aarch64.neon.sdot.v4i32.v16i8",
                acc,
                cell,
                T.reinterpret(f"int8x{lanes * 4}", code),
            )
        return acc + widen(code, "int32") * widen(cell, "int32")
