"""``linear`` and dense ``conv2d``: one implicit-GEMM kernel.

A row of the implicit matrix is a pixel's receptive field: ``runs`` contiguous runs of
``run_length`` codes. A tile of ``rows`` output pixels times ``vectors`` registers of output
channels is accumulated in registers (``gemm_micro``).
"""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T

from tvm_passes.kernels.builder import build_kernel, int32
from tvm_passes.kernels.depthwise import depthwise_kernel, grouped_kernel
from tvm_passes.kernels.gemm_micro import MicroKernel
from tvm_passes.kernels.gemm_tile import (
    Access,
    Tile,
    default_tile,
    input_offset,
    pack_weights,
    uses_dot,
)
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.registry import Kernel, kernel
from tvm_passes.ops.base import OPERATORS, TensorSpec
from tvm_passes.ops.gemm import Conv2dConfig, LinearConfig


def _tiled(extent: int, tile: int, emit: Callable[[Expr | int, int], None]) -> None:
    """Cover ``extent`` by full tiles in a loop, and a smaller one at the end."""
    full, rest = divmod(extent, tile)
    if full:
        with T.serial(0, full) as index:
            emit(index * tile, tile)
    if rest:
        emit(int32(full * tile), rest)


def gemm_kernel(
    access: Access,
    specs: Sequence[TensorSpec],
    out: TensorSpec,
    config: LinearConfig,
    isa: Isa,
    tile: Tile | None = None,
) -> Kernel:
    """Kernel of a product whose implicit matrix is described by ``access``."""
    x, w, bias = specs[:3]
    channels = w.shape[0]
    tile = tile or default_tile(access.columns, channels, isa)
    lanes = isa.lanes
    blocks = -(-channels // lanes)
    padded = blocks * lanes
    depth = 4 if uses_dot(x.dtype, isa) else 1
    panel_block = access.runs * -(-access.run_length // depth) * depth * lanes
    packed = [
        x,
        TensorSpec((blocks * panel_block,), "int8"),
        TensorSpec((bias.shape[0] * padded,), "int32"),
        TensorSpec((padded,), "int32"),
        TensorSpec((padded,), "int32"),
        out,
    ]
    with build_kernel(packed) as builder:
        micro = MicroKernel(access, channels, x.dtype, config, isa, builder.buffers)

        def panel(first_block: Expr, vectors: int, tail: int) -> None:
            with T.serial(0, access.rows) as row:
                _tiled(
                    access.columns,
                    tile.rows,
                    lambda column, rows: micro.emit(
                        row,
                        column,
                        Tile(rows, vectors),
                        first_block * panel_block,
                        first_block,
                        tail,
                    ),
                )

        whole = (blocks - 1) // tile.vectors * tile.vectors  # blocks in panels before the last
        if whole:
            with T.serial(0, whole // tile.vectors) as index:
                panel(index * tile.vectors, tile.vectors, 0)
        panel(int32(whole), blocks - whole, channels % lanes)

    offset = input_offset(x.dtype, isa)

    def pack(constants: Mapping[int, NDArray[Any]]) -> Mapping[int, NDArray[Any]]:
        weights, biases, multiplier, shift = (constants[index] for index in range(1, 5))
        rows = weights.reshape(channels, -1)
        corrected = biases.astype(np.int64) - offset * rows.astype(np.int64).sum(1)
        wide = np.zeros((biases.shape[0], padded), np.int32)
        wide[:, :channels] = corrected.astype(np.int32)
        return {
            1: pack_weights(rows, access, tile.vectors, lanes, depth),
            2: wide.ravel(),
            3: np.pad(multiplier, (0, padded - channels)),
            4: np.pad(shift, (0, padded - channels), constant_values=1),
        }

    return Kernel(builder.func, pack)


@kernel("linear")
def linear(config: LinearConfig, specs: Sequence[TensorSpec], isa: Isa) -> Kernel:
    """x [..., K] times w [N, K]."""
    depth = specs[1].shape[1]
    rows = prod(specs[0].shape[:-1])
    access = Access(1, rows, 0, depth, 1, 1, 0, 0, depth)
    return gemm_kernel(access, specs, OPERATORS["linear"].infer(config, specs), config, isa)


@kernel("conv2d")
def conv2d(config: Conv2dConfig, specs: Sequence[TensorSpec], isa: Isa) -> Kernel:
    """Dense, depthwise or grouped convolution of a padded NHWC map."""
    x, w = specs[:2]
    out = OPERATORS["conv2d"].infer(config, specs)
    if config.groups != 1:
        depthwise = config.groups == x.shape[3] == w.shape[0]
        return (depthwise_kernel if depthwise else grouped_kernel)(config, specs, out, isa)
    _, _, width, channels = x.shape
    _, height_taps, width_taps, _ = w.shape
    contiguous = config.dilation[1] == 1
    access = Access(
        rows=out.shape[1],
        columns=out.shape[2],
        row_stride=config.strides[0] * width * channels,
        column_stride=config.strides[1] * channels,
        runs=height_taps if contiguous else height_taps * width_taps,
        inner_runs=1 if contiguous else width_taps,
        inner_stride=config.dilation[1] * channels,
        run_stride=config.dilation[0] * width * channels,
        run_length=width_taps * channels if contiguous else channels,
    )
    return gemm_kernel(access, specs, out, config, isa)
