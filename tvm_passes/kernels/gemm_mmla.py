"""The micro-kernel on ``smmla``: two pixels times two channels times eight codes an instruction.

Both operands hold two rows of eight codes. The codes of a block of register tiles are brought into
that order once, in a buffer of their own, and serve all panels of channels. A run is cut in groups
of eight codes, the last one overlapping the one before, as in ``gemm_tile``.
"""

from collections.abc import Sequence

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_passes.kernels.builder import Accumulators, int32, load, store
from tvm_passes.kernels.dot import exchange, flip_signs, smmla
from tvm_passes.kernels.gemm_tile import Access, GemmSchedule

EIGHT = 8
PAIR = 16  # bytes of an operand
LANES = 4


class MmlaMicroKernel:
    """Emits sums of products for register tiles of an even number of pixels."""

    def __init__(
        self, access: Access, flip: bool, x: Buffer, weights: Buffer, schedule: GemmSchedule
    ) -> None:
        """Set the kernel up; inside the loop over blocks, because it allocates their buffer.

        Args:
            access: how the implicit matrix lies in the input; runs have at least eight codes.
            flip: whether codes are unsigned, so that 128 is taken away from each.
            x: input.
            weights: packed by ``pack_weights``, pairs of channels side by side.
            schedule: with an even number of rows.
        """
        self.access, self.flip, self.x, self.weights = access, flip, x, weights
        self.rows, self.unroll = schedule.rows, schedule.unroll
        self.groups = access.runs * (-(-access.run_length // EIGHT))
        self.tile_bytes = self.groups * self.rows * EIGHT
        self.codes = T.alloc_buffer((schedule.block * self.tile_bytes,), "int8")

    def prepare(self, tile: Expr, start: Expr) -> None:
        """Order the codes of a tile.

        Args:
            tile: its number in the block.
            start: flat offset of its first pixel's receptive field.
        """
        access = self.access
        groups = -(-access.run_length // EIGHT)
        inner = access.inner_runs
        with T.serial(0, access.runs // inner) as outer_run:
            with T.serial(0, inner) as inner_run:
                run = outer_run * inner + inner_run
                source = start + outer_run * access.run_stride + inner_run * access.inner_stride
                target = tile * self.tile_bytes + run * (groups * self.rows * EIGHT)
                self._prepare_run(source, target)

    def _prepare_run(self, source: Expr, target: Expr) -> None:
        length, step = self.access.run_length, self.rows * EIGHT
        if length // (2 * EIGHT):
            with T.serial(0, length // (2 * EIGHT)) as index:
                self._interleave(source + index * 2 * EIGHT, target + index * 2 * step, 2)
        done = length // (2 * EIGHT) * 2
        if length % (2 * EIGHT) >= EIGHT:
            self._interleave(source + done * EIGHT, target + done * step, 1)
            done += 1
        if length % EIGHT:
            self._interleave(source + length - EIGHT, target + done * step, 1)

    def _interleave(self, source: Expr, target: Expr, groups: int) -> None:
        width = groups * EIGHT
        for row in range(0, self.rows, 2):
            pair = [
                T.bind(load(self.x, source + (row + side) * self.access.column_stride, width))
                for side in range(2)
            ]
            if self.flip:
                pair = [T.bind(T.reinterpret(f"int8x{width}", flip_signs(row))) for row in pair]
            for group in range(groups):
                lanes = range(group * EIGHT, (group + 1) * EIGHT)
                order = [int32(lane) for lane in (*lanes, *(width + lane for lane in lanes))]
                place = target + group * self.rows * EIGHT + row * EIGHT
                store(self.codes, place, tirx.Shuffle(pair, order), PAIR)

    def multiply(
        self, biases: Sequence[Sequence[Expr]], tile: Expr, start: Expr, panel: Expr
    ) -> list[list[Expr]]:
        """Accumulators of a tile; see ``MicroKernel.multiply``."""
        del start
        vectors = len(biases[0])
        acc = Accumulators(self.rows * vectors, LANES)
        for row in range(0, self.rows, 2):
            for v in range(vectors):
                low, high = exchange(biases[row][v], biases[row + 1][v])
                index = row * vectors + 2 * v
                acc[index], acc[index + 1] = low, high
        codes, unroll = tile * self.tile_bytes, self.unroll
        if self.groups // unroll:
            with T.serial(0, self.groups // unroll) as index:
                for each in range(unroll):
                    self._step(acc, codes, panel, index * unroll + each, vectors)
        for group in range(self.groups // unroll * unroll, self.groups):
            self._step(acc, codes, panel, int32(group), vectors)
        rows: list[list[Expr]] = []
        for row in range(0, self.rows, 2):
            halves = [acc[row * vectors + column] for column in range(2 * vectors)]
            pairs = [exchange(*halves[2 * v : 2 * v + 2]) for v in range(vectors)]
            rows += [[first for first, _ in pairs], [second for _, second in pairs]]
        return rows

    def _step(self, acc: Accumulators, codes: Expr, panel: Expr, group: Expr, vectors: int) -> None:
        pairs = self.rows // 2
        pixels = [
            T.bind(load(self.codes, codes + (group * pairs + pair) * PAIR, PAIR))
            for pair in range(pairs)
        ]
        for column in range(2 * vectors):
            place = panel + (group * (2 * vectors) + column) * PAIR
            channels = T.bind(load(self.weights, place, PAIR))
            for pair in range(pairs):
                index = pair * 2 * vectors + column
                acc[index] = smmla(acc[index], pixels[pair], channels)
