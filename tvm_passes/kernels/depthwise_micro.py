"""Micro-kernels of the depthwise convolution: sums over one window, by dot product or tap by tap.

Both work on columns: ``column`` loads what one input column gives to the output rows of a tile, and
``accumulate`` adds up the columns of a window. The loops may keep a column for the next window.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_passes.errors import LoweringError
from tvm_passes.kernels.builder import int32, join, lane_slice, lanes_of, load
from tvm_passes.kernels.depthwise_tile import DOT, DepthwiseSchedule, RowPlan, Window
from tvm_passes.kernels.dot import WORD, dot, flip_signs
from tvm_passes.kernels.fixed_point import widen
from tvm_passes.kernels.gemm_tile import input_offset
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.windows import Held, Vectors


@dataclass(frozen=True)
class Taps(ABC):
    """A method.

    Attributes:
        plan: rows of a tile.
        vectors: int32 registers of channels in a block.
        x_dtype: dtype of the input.
        isa: instruction set.
    """

    plan: RowPlan
    vectors: int
    x_dtype: str
    isa: Isa

    @property
    def lanes(self) -> int:
        """Channels of a block."""
        return self.vectors * self.isa.lanes

    @abstractmethod
    def pack(self, weights: NDArray[np.int8]) -> NDArray[np.int8]:
        """Weights [lanes, kh, kw] of one block, flat, in the order of ``weights``."""

    @abstractmethod
    def weights(self, buffer: Buffer, start: Expr) -> Vectors:
        """The packed weights of a block, bound to names."""

    @abstractmethod
    def column(self, x: Buffer, start: Expr, valid: int, rows: int) -> Vectors:
        """What an input column gives to ``rows`` output rows, bound to names.

        Args:
            x: flat input.
            start: offset of the block's first channel in the first row.
            valid: channels of the block that exist.
            rows: output rows.
        """

    @abstractmethod
    def accumulate(
        self, row: int, columns: Sequence[Vectors], weights: Vectors, bias: Vectors
    ) -> Vectors:
        """int32 registers of one output row of a tile, from the columns of its window."""


class DotTaps(Taps):
    """Up to four rows per dot product, interleaved byte by byte."""

    def pack(self, weights: NDArray[np.int8]) -> NDArray[np.int8]:
        """As [term][column][channel][4]."""
        taps = np.pad(weights, ((0, 0), (0, 1), (0, 0)))  # the last row stands for None
        slots = [[-1 if tap is None else tap for tap in term.taps] for term in self.plan.terms]
        return np.ascontiguousarray(taps[:, slots].transpose(1, 3, 0, 2)).ravel()

    def weights(self, buffer: Buffer, start: Expr) -> Vectors:
        """One vector per term, column of the kernel and register."""
        size = self.isa.lanes * WORD
        count = len(self.plan.terms) * self.plan.window.columns.taps * self.vectors
        return [T.bind(load(buffer, start + index * size, size)) for index in range(count)]

    def column(self, x: Buffer, start: Expr, valid: int, rows: int) -> Vectors:
        """The interleaved groups of rows."""
        codes = _rows(x, start, valid, self.lanes, self.plan.window, rows)
        return [
            Held(self._operand(vector)).get()
            for group in RowPlan(self.plan.window, rows).groups
            for vector in interleave([codes[row] for row in group], self.isa)
        ]

    def _operand(self, vector: Expr) -> Expr:
        if not input_offset(self.x_dtype, self.isa):
            return vector
        return flip_signs(T.reinterpret(f"int8x{lanes_of(vector)}", vector))

    def accumulate(
        self, row: int, columns: Sequence[Vectors], weights: Vectors, bias: Vectors
    ) -> Vectors:
        """A dot product per term and column."""
        sums = list(bias)
        for index, term in enumerate(self.plan.terms):
            if term.row != row:
                continue
            for tap, column in enumerate(columns):
                cell = (index * len(columns) + tap) * self.vectors
                for v in range(self.vectors):
                    data = column[term.group * self.vectors + v]
                    sums[v] = dot(sums[v], data, weights[cell + v], self.isa)
        return [Held(total).get() for total in sums]


class MultiplyTaps(Taps):
    """A widening multiplication per tap; two products of int8 codes add up in 16 bits."""

    def pack(self, weights: NDArray[np.int8]) -> NDArray[np.int8]:
        """As [row][column][channel].

        Raises:
            LoweringError: two products could leave 16 bits.
        """
        if self.x_dtype == "int8" and weights.min() < -127:
            raise LoweringError("conv2d: a depthwise weight of -128; symmetric codes leave it out")
        return np.ascontiguousarray(weights.transpose(1, 2, 0)).ravel()

    def weights(self, buffer: Buffer, start: Expr) -> Vectors:
        """One vector per tap."""
        count = self.plan.window.rows.taps * self.plan.window.columns.taps
        return [
            T.bind(load(buffer, start + index * self.lanes, self.lanes)) for index in range(count)
        ]

    def column(self, x: Buffer, start: Expr, valid: int, rows: int) -> Vectors:
        """The codes of every row."""
        return list(_rows(x, start, valid, self.lanes, self.plan.window, rows).values())

    def accumulate(
        self, row: int, columns: Sequence[Vectors], weights: Vectors, bias: Vectors
    ) -> Vectors:
        """Tap by tap, or two by two."""
        axis, total = self.plan.window.rows, join(bias)
        rows = axis.sources(self.plan.rows)
        taps = [
            (column[rows.index(axis.source(row, i))], weights[i * len(columns) + j])
            for i in range(axis.taps)
            for j, column in enumerate(columns)
        ]
        dtype = "int32" if self.x_dtype == "int16" else "int16"
        together = 2 if self.x_dtype == "int8" else 1
        for first in range(0, len(taps), together):
            products = [widen(x, dtype) * widen(w, dtype) for x, w in taps[first:][:together]]
            total = total + widen(sum(products[1:], products[0]), "int32")
        total = Held(total).get()
        return [lane_slice(total, v * self.isa.lanes, self.isa.lanes) for v in range(self.vectors)]


def make_taps(window: Window, schedule: DepthwiseSchedule, x_dtype: str, isa: Isa) -> Taps:
    """The method of a schedule."""
    method = DotTaps if schedule.method == DOT else MultiplyTaps
    return method(RowPlan(window, schedule.rows), schedule.vectors, x_dtype, isa)


def interleave(rows: Vectors, isa: Isa) -> list[Expr]:
    """Registers of ``[channel][4]`` bytes from one to four vectors of channels."""
    lanes = lanes_of(rows[0])
    four = [rows[slot % len(rows)] for slot in range(WORD)]
    if isa.arch == "aarch64" and lanes in (8, 16):
        even, odd = _zip(four[0], four[2]), _zip(four[1], four[3])
        return [zipped for a, b in zip(even, odd, strict=True) for zipped in _zip(a, b)]
    order = [slot * isa.lanes + lane for lane in range(isa.lanes) for slot in range(WORD)]
    return [
        tirx.Shuffle(
            [join([lane_slice(row, start, isa.lanes) for row in four])], list(map(int32, order))
        )
        for start in range(0, lanes, isa.lanes)
    ]


def _zip(a: Expr, b: Expr) -> list[Expr]:
    """Bytes of a and b in turn, in registers of 16."""
    lanes = lanes_of(a)
    turns = [int32(lane + side) for lane in range(lanes) for side in (0, lanes)]
    return [
        T.bind(tirx.Shuffle([a, b], turns[start : start + 16])) for start in range(0, 2 * lanes, 16)
    ]


def _rows(
    x: Buffer, start: Expr, valid: int, lanes: int, window: Window, rows: int
) -> dict[int, Expr]:
    """The codes of one column and block, by input row."""
    stride = window.width * window.channels
    return {
        row: T.bind(_load_valid(x, start + row * stride, lanes, valid))
        for row in window.rows.sources(rows)
    }


def _load_valid(x: Buffer, start: Expr, lanes: int, valid: int) -> Expr:
    """``valid`` codes in a vector of ``lanes``, never reading past the last one."""
    if valid == lanes:
        return load(x, start, lanes)
    zero = tirx.const(0, str(x.dtype))
    codes = [x[start + lane] for lane in range(valid)] + [zero] * (lanes - valid)
    return tirx.Shuffle(codes, [int32(lane) for lane in range(lanes)])
