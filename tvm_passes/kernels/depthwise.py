"""Depthwise ``conv2d``, vectorised over channels, and the general grouped one."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T

from tvm_passes.errors import LoweringError
from tvm_passes.kernels.builder import Accumulators, build_kernel, int32, load
from tvm_passes.kernels.epilogue import finish, store_channels
from tvm_passes.kernels.fixed_point import widen
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.registry import Kernel
from tvm_passes.ops.base import TensorSpec
from tvm_passes.ops.gemm import Conv2dConfig


def _check_bias(config: Conv2dConfig) -> None:
    if config.row_classes:
        raise LoweringError("conv2d: a grouped convolution has one bias per channel")


def depthwise_kernel(
    config: Conv2dConfig, specs: Sequence[TensorSpec], out: TensorSpec, isa: Isa
) -> Kernel:
    """x [1, H, W, C] with w [C, kh, kw, 1]; weights packed [kh, kw, C rounded up]."""
    _check_bias(config)
    x = specs[0]
    _, _, width, channels = x.shape
    taps = specs[1].shape[1:3]
    lanes = isa.lanes
    padded = -(-channels // lanes) * lanes
    packed = [
        x,
        TensorSpec((taps[0] * taps[1] * padded,), "int8"),
        *(TensorSpec((padded,), "int32") for _ in range(3)),
        out,
    ]

    with build_kernel(packed) as builder:
        x_buf, w_buf, bias, multiplier, shift, out_buf = builder.buffers

        def block(row: Expr, column: Expr, first: Expr | int, valid: int) -> None:
            acc = Accumulators(1, lanes)
            acc[0] = load(bias, first, lanes)
            for i in range(taps[0]):
                for j in range(taps[1]):
                    y = row * config.strides[0] + i * config.dilation[0]
                    z = column * config.strides[1] + j * config.dilation[1]
                    codes = _codes(x_buf, (y * width + z) * channels + first, lanes, valid)
                    weights = load(w_buf, (i * taps[1] + j) * padded + first, lanes)
                    product = widen(widen(codes, "int16"), "int32") * widen(
                        widen(weights, "int16"), "int32"
                    )
                    acc[0] = acc[0] + product
            offset = (row * out.shape[2] + column) * channels + first
            store_channels(
                out_buf, offset, acc[0], first, lanes, valid, (multiplier, shift), config, isa
            )

        with T.serial(0, out.shape[1]) as row:
            with T.serial(0, out.shape[2]) as column:
                if channels // lanes:
                    with T.serial(0, channels // lanes) as index:
                        block(row, column, index * lanes, lanes)
                if channels % lanes:
                    block(row, column, int32(channels // lanes * lanes), channels % lanes)

    def pack(constants: Mapping[int, NDArray[Any]]) -> Mapping[int, NDArray[Any]]:
        extra = padded - channels
        weights = constants[1].reshape(channels, -1).T
        return {
            1: np.pad(weights, ((0, 0), (0, extra))).ravel(),
            2: np.pad(constants[2][0], (0, extra)),
            3: np.pad(constants[3], (0, extra)),
            4: np.pad(constants[4], (0, extra), constant_values=1),
        }

    return Kernel(builder.func, pack)


def _codes(buffer: tirx.Buffer, offset: Expr, lanes: int, valid: int) -> Expr:
    """``valid`` codes in a vector of ``lanes``, never reading past the last one."""
    if valid == lanes:
        return load(buffer, offset, lanes)
    zero = tirx.const(0, str(buffer.dtype))
    return tirx.Shuffle(
        [buffer[offset + lane] for lane in range(valid)] + [zero] * (lanes - valid),
        [int32(lane) for lane in range(lanes)],
    )


def grouped_kernel(
    config: Conv2dConfig, specs: Sequence[TensorSpec], out: TensorSpec, isa: Isa
) -> Kernel:
    """Any grouped convolution, one output at a time: correct, not fast."""
    _check_bias(config)
    x, w = specs[:2]
    _, _, width, channels = x.shape
    filters, rows, columns, depth = w.shape
    per_group = filters // config.groups
    with build_kernel([*specs, out]) as builder:
        x_buf, w_buf, bias, multiplier, shift, out_buf = builder.buffers
        acc = T.alloc_buffer((1,), "int32")
        with T.grid(out.shape[1], out.shape[2], filters) as (row, column, channel):
            T.buffer_store(acc, bias[channel], [0])
            with T.grid(rows, columns, depth) as (i, j, k):
                y = row * config.strides[0] + i * config.dilation[0]
                z = column * config.strides[1] + j * config.dilation[1]
                group = tirx.floordiv(channel, per_group)
                code = x_buf[(y * width + z) * channels + group * depth + k]
                weight = w_buf[((channel * rows + i) * columns + j) * depth + k]
                product = code.astype("int32") * weight.astype("int32")
                T.buffer_store(acc, acc[0] + product, [0])
            codes = finish(acc[0], multiplier[channel], shift[channel], config, isa)
            T.buffer_store(out_buf, codes, [(row * out.shape[2] + column) * filters + channel])
    return Kernel(builder.func)
