"""The heads of the attention kernels: scores, weights and values of a few queries at a time.

Per batch and head, k and v are packed once (``panel``). Then, for a block of queries, the logits go
to a small buffer that stays in the first-level cache, become codes (``attention_weights``,
``adalog_weights`` or ``uniform_weights``), and multiply v.
"""

from collections.abc import Callable, Sequence

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_passes.kernels.adalog_weights import AdaLogWeights
from tvm_passes.kernels.attention_bias import ABSENT, Bias
from tvm_passes.kernels.attention_schedule import (
    AnyConfig,
    AttentionSchedule,
    AttentionShape,
    default_schedule,
    planes,
)
from tvm_passes.kernels.attention_weights import LogitRow, SoftmaxWeights
from tvm_passes.kernels.builder import Accumulators, int32, join, load, splat, store
from tvm_passes.kernels.dot import WORD
from tvm_passes.kernels.fixed_point import constant, widen
from tvm_passes.kernels.functions import lane_max
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.loops import pieces
from tvm_passes.kernels.panel import (
    CHUNK,
    Panel,
    Rows,
    for_tiles,
    store_lanes,
    word_of,
)
from tvm_passes.kernels.panel_micro import PanelProduct, add_column_sums
from tvm_passes.kernels.parallel import tasks
from tvm_passes.kernels.uniform_weights import UniformWeights
from tvm_passes.ops.base import TensorSpec

MakeWeights = Callable[["Head"], SoftmaxWeights | AdaLogWeights | UniformWeights]


def emit_heads(
    config: AnyConfig,
    specs: Sequence[TensorSpec],
    isa: Isa,
    schedule: AttentionSchedule | None,
    bias: Bias | None,
    buffers: Sequence[Buffer],
    weights: MakeWeights,
) -> None:
    """The loop over batch and heads; ``buffers`` are q, k, v, perhaps the bias, and the output."""
    shape = AttentionShape.of(config, specs)
    tiles = schedule or default_schedule(shape, isa)

    def one_head(index: Expr) -> None:
        place = index // shape.heads, index % shape.heads
        Head(config.zero_q, shape, tiles, isa, bias, buffers, weights, place).emit()

    work = shape.keys * specs[0].shape[1] * (specs[0].shape[2] + specs[2].shape[2])
    tasks(shape.batch * shape.heads, work // shape.heads, one_head)


class Head:
    """Emits the work on one head; scratch memory is its own."""

    def __init__(
        self,
        zero_q: int,
        shape: AttentionShape,
        schedule: AttentionSchedule,
        isa: Isa,
        bias: Bias | None,
        buffers: Sequence[Buffer],
        weights: MakeWeights,
        place: tuple[Expr, Expr],
    ) -> None:
        """Declare the scratch memory; ``buffers`` as for ``emit_heads``, ``place`` in the batch."""
        self.batch, self.index = place
        self.zero_q, self.shape, self.schedule, self.isa = zero_q, shape, schedule, isa
        self.q, self.k, self.v, *rest = buffers
        self.out, self.bias = rest[-1], bias
        self.bias_buffer = rest[0]
        matrix = isa.matrix is not None
        key_pairs = matrix and schedule.rows % 2 == 0
        self.keys = Panel(shape.width, shape.keys, schedule.key_vectors, isa, key_pairs)
        value_pairs = matrix and schedule.value_rows * planes(shape, isa) % 2 == 0
        self.values = Panel(shape.keys, shape.value_width, schedule.value_vectors, isa, value_pairs)
        self.key_panel, self.value_panel = self.keys.allocate(), self.values.allocate()
        lanes, rows = isa.lanes, schedule.rows
        step = 32 if isa.simd == "avx512" else 8
        self.padded = -(-shape.keys // step) * step  # length of a row of logits
        # queries lie behind the logits in one buffer: reading them again for every tile of keys is
        # cheaper than what LLVM does with them where it sees that they do not change
        first = Rows.size(rows, self.padded)
        size = first + Rows.size(rows, shape.width) // (4 if isa.dot else 1)
        buffer = T.alloc_buffer((size,), "int32")
        self.logits = Rows(buffer, rows)
        self.queries = Rows(buffer, rows, first, isa.dot is not None, self.keys.chunk)
        count = rows * planes(shape, isa)
        codes = T.alloc_buffer((Rows.size(count, self.padded),), self.values.code_dtype)
        self.codes = Rows(codes, count, chunk=self.values.chunk)
        self.greatest = T.alloc_buffer((rows,), "int32")
        self.weights = weights(self)
        self.total = T.alloc_buffer((rows,), "int32")
        self.value_sums = (
            T.alloc_buffer((self.values.blocks * lanes,), "int32") if self.weights.base else None
        )
        self.masks = bias is None and shape.keys % lanes > 0
        self.offsets = (
            T.alloc_buffer((self.keys.blocks * lanes,), "int32") if zero_q or self.masks else None
        )
        for row in range(rows):
            for column in range(self.keys.blocks * lanes, self.padded, lanes):
                self.logits.put(row, int32(column), splat(int32(ABSENT), lanes))

    def emit(self) -> None:
        """All queries of the head."""
        batch, head = self.batch, self.index
        shape, rows = self.shape, self.schedule.rows
        width, value_width = shape.heads * shape.width, shape.heads * shape.value_width
        k = batch * (shape.keys * width) + head * shape.width
        v = batch * (shape.keys * value_width) + head * shape.value_width
        self.keys.pack_columns(self.key_panel, self.k, k, width)
        self.values.pack_rows(self.value_panel, self.v, v, value_width)
        if self.offsets is not None:
            self._offsets(self.offsets)
        if self.value_sums is not None:
            self._sums(self.values, self.value_panel, self.weights.base, self.value_sums)
        with T.serial(0, -(-shape.queries // rows)) as block:
            # the last block may repeat queries of the one before
            query = T.bind(tirx.min(block * rows, int32(shape.queries - rows)))
            token = T.bind(batch * shape.queries + query)
            self._load_queries(token * width + head * shape.width, width)
            greatest = self._logits(query)
            for row in range(rows):
                T.buffer_store(self.greatest, lane_max(greatest[row], self.isa.lanes), [row])
            with T.serial(0, rows) as row:
                self._weights(row)
            self._mean(token * value_width + head * shape.value_width, value_width)

    def _offsets(self, offsets: Buffer) -> None:
        """What the accumulators of the keys begin with: the zero point of q, and absent keys."""
        lanes = self.isa.lanes
        self._sums(self.keys, self.key_panel, -self.zero_q, offsets)
        if self.masks:
            for key in range(self.shape.keys, self.keys.blocks * lanes):
                T.buffer_store(offsets, int32(ABSENT), [key])

    def _sums(self, panel: Panel, packed: Buffer, factor: int, sums: Buffer) -> None:
        """The sum of every column of a panel, times a factor."""
        lanes = self.isa.lanes

        def tile(block: Expr, vectors: int, last: bool) -> None:
            acc = Accumulators(vectors, lanes)
            for vector in range(vectors):
                acc[vector] = splat(int32(0), lanes)
            if factor:
                add_column_sums(acc, panel, packed, (block, vectors))
            for vector in range(vectors):
                value = acc[vector] * splat(int32(factor), lanes)
                store(sums, (block + vector) * lanes, value, lanes)

        for_tiles(panel.blocks, panel.vectors, False, tile)

    def _load_queries(self, first: Expr, stride: int) -> None:
        """Copy a block of queries to where whole registers can be read."""
        width, target = self.shape.width, self.queries
        for row in range(self.schedule.rows):
            source = first + row * stride
            if not target.packed:
                for start, count in pieces(width, CHUNK):
                    target.put(row, start, widen(load(self.q, source + start, count), "int32"))
                continue
            whole = width // CHUNK * CHUNK if target.chunk == CHUNK else 0
            for start in range(0, whole, CHUNK):
                words = T.reinterpret("int32x4", load(self.q, source + start, CHUNK))
                store(target.buffer, target.at(row, start), words, 4)
            for start in range(whole, width, WORD):
                word = word_of(self.q, source + start, min(WORD, width - start))
                T.buffer_store(target.buffer, word, [target.at(row, start)])

    def _logits(self, query: Expr) -> Accumulators:
        """Write the logits of a block; return the greatest ones, lane by lane."""
        lanes, rows = self.isa.lanes, self.schedule.rows
        greatest = Accumulators(rows, lanes)
        for row in range(rows):
            greatest[row] = splat(int32(-(2**31)), lanes)

        def tile(block: Expr, vectors: int, last: bool) -> None:
            acc = Accumulators(rows * vectors, lanes)
            for row in range(rows):
                for vector in range(vectors):
                    at = (block + vector) * lanes
                    place = self.batch, self.index, query + row
                    acc[row * vectors + vector] = self._begin(place, at, last)
            keys = (self.keys, self.key_panel, block, vectors)
            PanelProduct(acc, *keys, self.queries, range(rows)).emit()
            for row in range(rows):
                for vector in range(vectors):
                    value = acc[row * vectors + vector]
                    self.logits.put(row, (block + vector) * lanes, value)
                    greatest[row] = tirx.max(greatest[row], value)

        for_tiles(self.keys.blocks, self.keys.vectors, self.masks, tile)
        return greatest

    def _begin(self, indices: Sequence[Expr], key: Expr, last: bool) -> Expr:
        """What an accumulator begins with."""
        lanes = self.isa.lanes
        value = splat(int32(0), lanes)
        if self.bias is not None:
            value = load(self.bias_buffer, self.bias.row(indices) + key, lanes)
        if self.offsets is not None and (self.zero_q or last):
            offset = load(self.offsets, key, lanes)
            value = offset if self.bias is None else value + offset
        return value

    def _weights(self, row: Expr) -> None:
        """Codes of one query."""
        greatest = self.greatest[row]
        line = LogitRow(self.logits, row, greatest, self.padded, self.codes, self.isa)
        total = self.weights.emit(line)
        T.buffer_store(self.total, total * int32(self.values.offset), [row])

    def _mean(self, first: Expr, stride: int) -> None:
        """Codes times v, normalised, for a block of queries."""
        lanes, count, values = self.isa.lanes, self.schedule.value_rows, self.values
        parts = planes(self.shape, self.isa)
        ragged = self.shape.value_width % lanes

        def tile(block: Expr, vectors: int, last: bool) -> None:
            with T.serial(0, self.schedule.rows // count) as group:
                row = group * count
                acc = Accumulators(count * parts * vectors, lanes)
                for index in range(count * parts * vectors):
                    at = (block + index % vectors) * lanes
                    sums = self.value_sums
                    acc[index] = splat(int32(0), lanes) if sums is None else load(sums, at, lanes)
                rows = [row * parts + part for part in range(count * parts)]
                PanelProduct(acc, values, self.value_panel, block, vectors, self.codes, rows).emit()
                valid = vectors * lanes - (lanes - ragged if last else 0)
                for r in range(count):
                    sums = [
                        [acc[(r * parts + part) * vectors + vector] for vector in range(vectors)]
                        for part in range(parts)
                    ]
                    offset = first + (row + r) * stride + block * lanes
                    self._store_mean(sums, row + r, offset, valid)

        for_tiles(values.blocks, values.vectors, ragged > 0, tile)

    def _store_mean(
        self, sums: Sequence[Sequence[Expr]], row: Expr, offset: Expr, valid: int
    ) -> None:
        """Store the first ``valid`` codes of one query; ``sums`` are registers of every plane."""
        lanes = self.isa.lanes
        for start, width in pieces(-(-valid // lanes) * lanes, CHUNK):
            registers = slice(start // lanes, (start + width) // lanes)
            value = self._finish([join(plane[registers]) for plane in sums], row, width)
            store_lanes(self.out, offset + start, value, width, min(width, valid - start))

    def _finish(self, sums: Sequence[Expr], row: Expr, lanes: int) -> Expr:
        """Output codes of sums of every plane."""
        value = sums[0]
        if len(sums) > 1:  # sums of planes may exceed int32 before they are put together
            high, low = (widen(plane, "uint32") for plane in sums)
            value = (high << constant(8, high, "uint32")) + low
            if self.values.offset:
                value = value - splat(self.total[row].astype("uint32"), lanes)
            value = widen(value, "int32")
        elif self.values.offset:
            value = value - splat(self.total[row], lanes)
        return self.weights.finish(T.bind(value), row)
