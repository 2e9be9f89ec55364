"""The end of every product: requantize the accumulators, the fused steps, the store.

All of it happens in registers, on the accumulators of one output pixel at a time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Buffer

from tvm_passes.kernels.builder import join, lane_slice, lanes_of, load, splat, store
from tvm_passes.kernels.fixed_point import rescale, saturate
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.lanes import LANE_OPERATORS
from tvm_passes.kernels.loops import pieces, powers
from tvm_passes.kernels.pad import emit_borders
from tvm_passes.ops.base import OPERATORS, TensorSpec
from tvm_passes.ops.fused import Step
from tvm_passes.ops.gemm import LinearConfig
from tvm_passes.ops.pad import PadConfig

MULTIPLIER = 3  # the last argument of a product
PREVIOUS = -1
TOGETHER = 64  # lanes of several pixels that go through the steps together, where speed counts


@dataclass(frozen=True)
class FusedStep:
    """A lane operator after a product.

    Attributes:
        operator: its name.
        config: its configuration.
        operands: index of the argument that each operand is, or ``PREVIOUS``.
        tables: indices of the arguments that are its tables.
    """

    operator: str
    config: Any
    operands: tuple[int, ...]
    tables: tuple[int, ...]


@dataclass(frozen=True)
class EpiloguePlan:
    """What follows a product, before any buffer exists.

    Attributes:
        steps: lane operators in order.
        extra: specs of the arguments after the product's own four.
        out: spec of the last lane operator's result, unpadded.
        pad: padding of the output, if it is stored into a padded map.
    """

    steps: tuple[FusedStep, ...]
    extra: tuple[TensorSpec, ...]
    out: TensorSpec
    pad: PadConfig | None = None

    @property
    def stored(self) -> TensorSpec:
        """Spec of what is stored."""
        return OPERATORS["pad"].infer(self.pad, [self.out]) if self.pad else self.out

    def packed_specs(self, isa: Isa) -> list[TensorSpec]:
        """Specs of the extra arguments as the kernel wants them."""
        return [TensorSpec(array.shape, str(array.dtype)) for array in self._packed({}, isa)]

    def pack(self, constants: Mapping[int, NDArray[Any]], isa: Isa) -> dict[int, NDArray[Any]]:
        """Constant extra arguments as the kernel wants them; the others are left out."""
        packed = self._packed(constants, isa)
        return {
            index: packed[index - MULTIPLIER - 1]
            for index in constants
            if MULTIPLIER < index <= MULTIPLIER + len(self.extra)
        }

    def _packed(self, constants: Mapping[int, NDArray[Any]], isa: Isa) -> list[NDArray[Any]]:
        arrays = [
            constants.get(index, np.broadcast_to(np.zeros((), spec.dtype), spec.shape))
            for index, spec in enumerate(self.extra, MULTIPLIER + 1)
        ]
        for step in self.steps:
            places = [index - MULTIPLIER - 1 for index in step.tables]
            tables = [np.ascontiguousarray(arrays[place]) for place in places]
            packed = LANE_OPERATORS[step.operator].packed(tables, isa)
            for place, array in zip(places, packed, strict=True):
                arrays[place] = array
        return arrays


def plan_epilogue(
    steps: Sequence[Step], specs: Sequence[TensorSpec], product: TensorSpec
) -> EpiloguePlan:
    """The plan for the steps of a fused call after its anchor.

    Args:
        steps: lane operators, and possibly a ``pad`` at the end.
        specs: all arguments of the fused call.
        product: spec of the anchor's result.
    """
    previous, out, pad = len(specs), product, None
    fused = []
    for step in steps:
        config = step.decoded()
        known = {previous: out, **dict(enumerate(specs))}
        inputs = tuple(PREVIOUS if index == previous else index for index in step.inputs)
        previous += 1
        if step.operator == "pad":
            pad = config
            continue
        out = OPERATORS[step.operator].infer(config, [known[index] for index in step.inputs])
        count = len(inputs) - LANE_OPERATORS[step.operator].tables
        fused.append(FusedStep(step.operator, config, inputs[:count], inputs[count:]))
    return EpiloguePlan(tuple(fused), tuple(specs[MULTIPLIER + 1 :]), out, pad)


class Epilogue:
    """Emits the end of a product."""

    def __init__(
        self,
        plan: EpiloguePlan,
        config: LinearConfig,
        specs: Sequence[TensorSpec],
        buffers: Sequence[Buffer],
        columns: int,
        isa: Isa,
    ) -> None:
        """Set the epilogue up.

        Args:
            plan: what follows the product.
            config: output format of the product itself.
            specs: arguments of the kernel before packing.
            buffers: its flat buffers; the multiplier (one int32 per channel, padded to whole
                vectors) at its place, the output last.
            columns: output pixels in a row, as ``store`` counts rows.
            isa: instruction set.
        """
        self.plan, self.config, self.specs, self.isa = plan, config, specs, isa
        self.buffers, self.out = buffers, buffers[-1]
        self.columns, self.channels = columns, plan.out.shape[-1]

    def fill_borders(self) -> None:
        """Store the padding, if there is any; once per call of the kernel."""
        if self.plan.pad is not None:
            emit_borders(self.plan.pad, self.plan.out, self.out)

    def store(
        self,
        accs: Sequence[Sequence[Expr]],
        row: Expr | int,
        column: Expr | int,
        channel: Expr | int,
        valid: int,
    ) -> None:
        """Finish the accumulators of consecutive channels of neighbouring pixels, and store them.

        The pixels go through every step together, so that a table is loaded once for all of them.

        Args:
            accs: int32 vectors of each pixel.
            row: output row.
            column: output column of the first pixel.
            channel: index of the first channel.
            valid: how many of the channels exist.
        """
        pixel = row * self.columns + column
        target = pixel
        if self.plan.pad is not None:
            before, after = self.plan.pad.before, self.plan.pad.after
            width = before[1] + self.columns + after[1]
            target = (row + before[0]) * width + column + before[1]
        split = [_split(each, valid) for each in accs]
        for position, (start, lanes, _) in enumerate(split[0]):
            first = channel + start
            pixels = [groups[position][2] for groups in split]
            together = TOGETHER if self.isa.dot else self.isa.wide
            # one lane each: TVMScript cannot read vectors of two
            for at, count in powers(len(pixels), 1 if lanes == 1 else max(together // lanes, 1)):
                offset = (pixel + at) * self.channels + first
                codes = self._codes(pixels[at : at + count], first, offset)
                for index in range(count):
                    offset = (target + at + index) * self.channels + first
                    store(self.out, offset, lane_slice(codes, index * lanes, lanes), lanes)

    def _codes(self, pixels: Sequence[Expr], channel: Expr, offset: Expr) -> Expr:
        lanes, count = lanes_of(pixels[0]), len(pixels)
        multiplier = T.bind(load(self.buffers[MULTIPLIER], channel, lanes))
        codes = finish(join(pixels), join([multiplier] * count), self.config, self.isa)
        for step in self.plan.steps:
            codes = _kept(codes)
            operands = [
                codes if index == PREVIOUS else self._operand(index, channel, offset, lanes, count)
                for index in step.operands
            ]
            tables = [self.buffers[index] for index in step.tables]
            compute = LANE_OPERATORS[step.operator].compute
            codes = compute(step.config, operands, tables, self.isa)
        return T.bind(codes)

    def _operand(self, index: int, channel: Expr, offset: Expr, lanes: int, count: int) -> Expr:
        """Elements of a second operand: of the same shape, one per channel, or a scalar."""
        shape, buffer = self.specs[index].shape, self.buffers[index]
        size = int(np.prod(shape))
        if size == 1:
            return splat(buffer[0], lanes * count)
        if size == self.channels:
            return join([load(buffer, channel, lanes)] * count)
        return join([load(buffer, offset + each * self.channels, lanes) for each in range(count)])


def _kept(codes: Expr) -> Expr:
    """``codes`` by way of a local buffer, which LLVM removes again.

    TVM's simplifier looks through names, and would take seconds for a chain of steps.
    """
    lanes = lanes_of(codes)
    if lanes == 1:
        return T.bind(codes)
    buffer = T.alloc_buffer((lanes,), str(codes.ty.dtype).partition("x")[0])
    store(buffer, 0, codes, lanes)
    return T.bind(load(buffer, 0, lanes))


def _split(accs: Sequence[Expr], valid: int) -> list[tuple[int, int, Expr]]:
    """First lane, lanes and vector of groups of lanes, each as wide as a power of two allows."""
    each, groups = lanes_of(accs[0]), []
    for start, lanes in pieces(valid, valid):
        if lanes >= each:
            group = join(accs[start // each : (start + lanes) // each])
        else:
            group = lane_slice(accs[start // each], start % each, lanes)
        groups.append((start, lanes, group))
    return groups


def finish(acc: Expr, multiplier: Expr, config: LinearConfig, isa: Isa) -> Expr:
    """int32 accumulators (scalar or vector) to output codes."""
    value = rescale(acc, multiplier, config.left, isa)
    return saturate(value, config.qmin, config.qmax, config.dtype, config.zero_point)
