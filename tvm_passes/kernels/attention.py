"""Kernels of ``attention``, ``adalog_attention`` and ``uniform_attention``."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvm_passes.kernels.adalog_weights import AdaLogWeights, pack_table
from tvm_passes.kernels.attention_bias import Bias
from tvm_passes.kernels.attention_head import Head, MakeWeights, emit_heads
from tvm_passes.kernels.attention_schedule import (
    AnyConfig,
    AttentionSchedule,
    AttentionShape,
    schedules,
)
from tvm_passes.kernels.attention_weights import SoftmaxWeights
from tvm_passes.kernels.builder import build_kernel
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.registry import Kernel, kernel
from tvm_passes.kernels.uniform_weights import UniformWeights
from tvm_passes.ops.adalog_attention import AdaLogAttentionConfig
from tvm_passes.ops.attention import MOST_KEYS, AttentionConfig, infer_attention
from tvm_passes.ops.base import TensorSpec
from tvm_passes.ops.uniform_attention import UniformAttentionConfig


def _space(config: AnyConfig, specs: Sequence[TensorSpec], isa: Isa) -> Iterator[AttentionSchedule]:
    return schedules(AttentionShape.of(config, specs), isa)


@kernel("attention", _space)
def attention(
    config: AttentionConfig,
    specs: Sequence[TensorSpec],
    isa: Isa,
    schedule: AttentionSchedule | None = None,
) -> Kernel:
    """q [B, M, H*D], k [B, N, H*D], v [B, N, H*Dv], and a constant bias that is padded."""

    def weights(head: Head) -> SoftmaxWeights:
        rows = head.schedule.rows, head.shape.keys
        return SoftmaxWeights(config, head.index, rows, isa)

    return _plain(config, specs, isa, schedule, weights)


@kernel("uniform_attention", _space)
def uniform_attention(
    config: UniformAttentionConfig,
    specs: Sequence[TensorSpec],
    isa: Isa,
    schedule: AttentionSchedule | None = None,
) -> Kernel:
    """As ``attention``."""

    def weights(head: Head) -> UniformWeights:
        counted = head.values.offset > 0
        rows = head.schedule.rows, head.padded
        return UniformWeights(config, head.index, counted, rows, isa)

    return _plain(config, specs, isa, schedule, weights)


def _plain(
    config: AnyConfig,
    specs: Sequence[TensorSpec],
    isa: Isa,
    schedule: AttentionSchedule | None,
    weights: MakeWeights,
) -> Kernel:
    """Of q, k, v and perhaps a bias."""
    bias = Bias.of(specs[3:], specs[1].shape[1], isa)
    out = infer_attention(config, specs, MOST_KEYS)  # fewer where the operator says so
    with build_kernel([*specs[:3], *(bias.specs if bias else []), out]) as builder:
        emit_heads(config, specs, isa, schedule, bias, builder.buffers, weights)

    def pack(constants: Mapping[int, NDArray[Any]]) -> Mapping[int, NDArray[Any]]:
        return {3: bias.pack(constants[3])} if bias else {}

    return Kernel(builder.func, pack if bias else None)


@kernel("adalog_attention", _space)
def adalog_attention(
    config: AdaLogAttentionConfig,
    specs: Sequence[TensorSpec],
    isa: Isa,
    schedule: AttentionSchedule | None = None,
) -> Kernel:
    """As ``attention``, with the table of the codes, in planes, before the bias."""
    bias = Bias.of(specs[4:], specs[1].shape[1], isa)
    out = infer_attention(config, [*specs[:3], *specs[4:]])
    table = pack_table(np.zeros(256, np.int16), isa)
    packed = [*specs[:3], TensorSpec(table.shape, str(table.dtype)), *(bias.specs if bias else [])]
    with build_kernel([*packed, out]) as builder:
        q, k, v, table_buffer, *rest = builder.buffers

        def weights(head: Head) -> AdaLogWeights:
            return AdaLogWeights(config, head.index, table_buffer, head.values.offset > 0, isa)

        emit_heads(config, specs, isa, schedule, bias, [q, k, v, *rest], weights)

    def pack(constants: Mapping[int, NDArray[Any]]) -> Mapping[int, NDArray[Any]]:
        packed_bias = {4: bias.pack(constants[4])} if bias else {}
        return {3: pack_table(constants[3], isa), **packed_bias}

    return Kernel(builder.func, pack)
