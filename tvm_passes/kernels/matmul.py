"""``matmul`` of two computed tensors, batched over the leading dimensions.

With a' = a - base (base is 128 for int16 codes that are split in two int8 planes, else 0)::

    sum((a - za) (b - zb)) = sum(a' b) + (base - za) (sum(b) - K zb) - zb sum(a')

The sums over b are made once per batch, the ones over a, where they are needed, once per row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_passes.kernels.builder import Accumulators, build_kernel, int32, join, load, splat, store
from tvm_passes.kernels.dot import join_planes, planes, split_planes
from tvm_passes.kernels.epilogue import finish
from tvm_passes.kernels.fixed_point import constant, widen
from tvm_passes.kernels.functions import lane_sum
from tvm_passes.kernels.heads import filled, of_head
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.loops import pieces
from tvm_passes.kernels.panel import CHUNK, Panel, Rows, for_tiles, store_lanes
from tvm_passes.kernels.panel_micro import PanelProduct, add_column_sums
from tvm_passes.kernels.parallel import tasks
from tvm_passes.kernels.registry import Kernel, kernel
from tvm_passes.ops.base import OPERATORS, TensorSpec
from tvm_passes.ops.gemm import LinearConfig
from tvm_passes.ops.matmul import MatmulConfig


@dataclass(frozen=True)
class MatmulSchedule:
    """Register tile.

    Attributes:
        rows: output rows.
        vectors: registers of output columns.
    """

    rows: int
    vectors: int


def default_schedule(a: TensorSpec, columns: int, isa: Isa) -> MatmulSchedule:
    """A tile of about four registers of codes times four of columns, evened out over both."""
    parts = planes(a.dtype, isa)
    blocks = -(-columns // isa.lanes)
    vectors = min(blocks, 4 if isa.registers >= 32 else 2)
    vectors = -(-blocks // -(-blocks // vectors))
    return MatmulSchedule(min(4 // parts, a.shape[-2]), vectors)


def schedules(a: TensorSpec, columns: int, isa: Isa) -> Iterator[MatmulSchedule]:
    """Every schedule that fits the registers, the best guess first."""
    guess = default_schedule(a, columns, isa)
    yield guess
    for rows in range(1, min(a.shape[-2], 8) + 1):
        codes = rows * planes(a.dtype, isa)
        for vectors in range(1, min(8, -(-columns // isa.lanes)) + 1):
            found = MatmulSchedule(rows, vectors)
            if codes * vectors + codes + vectors <= isa.registers and found != guess:
                yield found


def _space(config: MatmulConfig, specs: Sequence[TensorSpec], isa: Isa) -> Iterator[MatmulSchedule]:
    return schedules(specs[0], OPERATORS["matmul"].infer(config, specs).shape[-1], isa)


@kernel("matmul", _space)
def matmul(
    config: MatmulConfig,
    specs: Sequence[TensorSpec],
    isa: Isa,
    schedule: MatmulSchedule | None = None,
) -> Kernel:
    """a [..., M, K] times b [..., K, N] or [..., N, K]."""
    a, b = specs
    out = OPERATORS["matmul"].infer(config, specs)
    chosen = schedule or default_schedule(a, out.shape[-1], isa)
    with build_kernel([a, b, out]) as builder:

        def one(batch: Expr) -> None:
            _Product(config, specs, out, chosen, isa, builder.buffers).emit(batch)

        tasks(prod(a.shape[:-2]), prod(a.shape[-2:]) * out.shape[-1], one)
    return Kernel(builder.func)


class _Product:
    """Emits one product of the batch; scratch memory is its own."""

    def __init__(
        self,
        config: MatmulConfig,
        specs: Sequence[TensorSpec],
        out: TensorSpec,
        schedule: MatmulSchedule,
        isa: Isa,
        buffers: Sequence[Buffer],
    ) -> None:
        self.config, self.schedule, self.isa = config, schedule, isa
        self.a, self.b, self.out = buffers
        self.dtype = specs[0].dtype
        self.height, self.depth = specs[0].shape[-2:]
        self.heads = specs[0].shape[-3] if len(specs[0].shape) > 2 else 1
        self.columns = out.shape[-1]
        self.parts = planes(self.dtype, isa)
        self.base = 128 if self.parts == 2 else 0
        count = schedule.rows * self.parts
        matrix = isa.matrix is not None and count % 2 == 0
        self.panel = Panel(self.depth, self.columns, schedule.vectors, isa, matrix)
        self.packed = self.panel.allocate()
        codes = T.alloc_buffer((Rows.size(count, self.depth),), self.panel.code_dtype)
        self.codes = Rows(codes, count, chunk=self.panel.chunk)
        self.column_factor = self.base - config.zero_a
        self.row_factor = -config.zero_b - self.panel.offset
        self.sums = T.alloc_buffer((self.panel.blocks * isa.lanes,), "int32")
        self.row_sums = T.alloc_buffer((schedule.rows,), "int32")
        self.output = LinearConfig(
            config.left, config.zero_point, config.qmin, config.qmax, config.dtype
        )

    def emit(self, batch: Expr) -> None:
        """One matrix times another."""
        self.multiplier = of_head(self.config.multiplier, batch % self.heads)
        rows, depth, columns = self.schedule.rows, self.depth, self.columns
        first = batch * (depth * columns)
        if self.config.transpose_b:
            self.panel.pack_columns(self.packed, self.b, first, depth)
        else:
            self.panel.pack_rows(self.packed, self.b, first, columns)
        if self.column_factor:
            self._column_sums()
        self._clear_padding()
        with T.serial(0, -(-self.height // rows)) as block:
            # the last block may repeat rows of the one before
            row = T.bind(batch * self.height + tirx.min(block * rows, int32(self.height - rows)))
            for index in range(rows):
                self._load_row(index, (row + index) * depth)
            self._multiply(row)

    def _column_sums(self) -> None:
        """What the accumulators of every column begin with."""
        lanes, panel = self.isa.lanes, self.panel
        excess = panel.offset * panel.groups * panel.group

        def tile(block: Expr, vectors: int, last: bool) -> None:
            del last
            acc = Accumulators(vectors, lanes)
            for vector in range(vectors):
                acc[vector] = splat(int32(-excess - self.depth * self.config.zero_b), lanes)
            add_column_sums(acc, panel, self.packed, (block, vectors))
            for vector in range(vectors):
                value = acc[vector] * splat(int32(self.column_factor), lanes)
                store(self.sums, (block + vector) * lanes, value, lanes)

        for_tiles(panel.blocks, panel.vectors, False, tile)

    def _clear_padding(self) -> None:
        """Codes behind the end of a row are zero."""
        chunk = self.codes.chunk
        if self.depth % chunk and self.panel.group > 1:
            for row in range(self.codes.count):
                zero = splat(tirx.const(0, "int8"), chunk)
                self.codes.put(row, self.depth // chunk * chunk, zero)

    def _load_row(self, row: int, first: Expr) -> None:
        """Copy one row of a to where whole registers can be read, in planes; sum it up."""
        total = T.alloc_buffer((1,), "int32")
        if self.row_factor:
            T.buffer_store(total, int32(0), [0])

        def put(start: Expr | int, width: int) -> None:
            code = T.bind(load(self.a, first + start, width))
            parts = [widen(code, self.panel.code_dtype)]
            if self.parts == 2:
                parts = list(split_planes(code))
            for part, plane in enumerate(parts):
                self.codes.put(row * self.parts + part, start, plane)
            if self.row_factor:
                wide = widen(code, "int32") - constant(self.base, code)
                T.buffer_store(total, total[0] + lane_sum(wide, width), [0])

        whole = self.depth // CHUNK
        if whole:
            with T.serial(0, whole) as chunk:
                put(chunk * CHUNK, CHUNK)
        for start, width in pieces(self.depth % CHUNK, CHUNK):
            put(whole * CHUNK + start, width)
        if self.row_factor:
            T.buffer_store(self.row_sums, total[0] * int32(self.row_factor), [row])

    def _multiply(self, row: Expr) -> None:
        """A block of rows times all columns."""
        lanes, rows, parts = self.isa.lanes, self.schedule.rows, self.parts
        ragged = self.columns % lanes

        def tile(block: Expr, vectors: int, last: bool) -> None:
            acc = Accumulators(rows * parts * vectors, lanes)
            for index in range(rows * parts):
                for vector in range(vectors):
                    value = splat(int32(0), lanes)
                    if self.column_factor and index % parts == parts - 1:
                        value = load(self.sums, (block + vector) * lanes, lanes)
                    acc[index * vectors + vector] = value
            each = range(rows * parts)
            tile = (self.panel, self.packed, block, vectors)
            PanelProduct(acc, *tile, self.codes, each).emit()
            valid = vectors * lanes - (lanes - ragged if last else 0)
            for r in range(rows):
                sums = [
                    [acc[(r * parts + part) * vectors + vector] for vector in range(vectors)]
                    for part in range(parts)
                ]
                self._store(sums, r, (row + r) * self.columns + block * lanes, valid)

        for_tiles(self.panel.blocks, self.panel.vectors, ragged > 0, tile)

    def _store(self, sums: Sequence[Sequence[Expr]], row: int, offset: Expr, valid: int) -> None:
        """Store the first ``valid`` outputs of one row; ``sums`` are registers of every plane."""
        lanes = self.isa.lanes
        for start, width in pieces(-(-valid // lanes) * lanes, CHUNK):
            registers = slice(start // lanes, (start + width) // lanes)
            parts = [join(plane[registers]) for plane in sums]
            value = join_planes(*parts) if len(parts) == 2 else widen(parts[0], "uint32")
            if self.row_factor:
                value = value + splat(self.row_sums[row].astype("uint32"), width)
            value = T.bind(widen(value, "int32"))
            if not self.config.raw:
                multiplier = filled(self.multiplier, value)
                value = finish(value, multiplier, self.output, self.isa)
            store_lanes(self.out, offset + start, value, width, min(width, valid - start))
