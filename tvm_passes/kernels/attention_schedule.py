"""Tile sizes of ``attention``, and its geometry, from which the default follows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tvm_passes.kernels.isa import Isa
from tvm_passes.ops.adalog_attention import AdaLogAttentionConfig
from tvm_passes.ops.attention import AttentionConfig
from tvm_passes.ops.base import TensorSpec
from tvm_passes.ops.uniform_attention import UniformAttentionConfig

AnyConfig = AttentionConfig | AdaLogAttentionConfig | UniformAttentionConfig

MOST_ROWS = MOST_VECTORS = 8  # of a register tile


@dataclass(frozen=True)
class AttentionShape:
    """Extents of one call.

    Attributes:
        batch: B.
        heads: H.
        queries: M.
        keys: N.
        width: D, codes of a head in q and k.
        value_width: Dv, codes of a head in v and in the output.
        parts: int8 parts of a weight.
    """

    batch: int
    heads: int
    queries: int
    keys: int
    width: int
    value_width: int
    parts: int = 2

    @classmethod
    def of(cls, config: AnyConfig, specs: Sequence[TensorSpec]) -> "AttentionShape":
        """The shape of a call of one of the operators."""
        q, k, v = specs[:3]
        batch, queries, width = q.shape
        heads = config.heads
        parts = 1 if isinstance(config, UniformAttentionConfig) else 2
        return cls(batch, heads, queries, k.shape[1], width // heads, v.shape[2] // heads, parts)


@dataclass(frozen=True)
class AttentionSchedule:
    """Tile sizes.

    Attributes:
        rows: queries in a block, whose logits stay in the first-level cache.
        key_vectors: registers of keys in a tile of ``rows`` queries.
        value_rows: queries in a tile of values; divides ``rows``.
        value_vectors: registers of values in such a tile.
    """

    rows: int
    key_vectors: int
    value_rows: int
    value_vectors: int


def _even(extent: int, most: int) -> int:
    """Tile size of at most ``most`` that evens out over ``extent``."""
    return -(-extent // -(-extent // most))


def planes(shape: AttentionShape, isa: Isa) -> int:
    """Parts of a weight: int8 planes for the dot products, else one int16."""
    return shape.parts if isa.dot else 1


def default_schedule(shape: AttentionShape, isa: Isa) -> AttentionSchedule:
    """Four queries times four registers of keys; two queries, or more where v is narrow."""
    rows = min(4, shape.queries)
    key_vectors = min(4 if isa.registers >= 32 else 2, -(-shape.keys // isa.lanes))
    blocks = -(-shape.value_width // isa.lanes)
    value_rows = rows if blocks * planes(shape, isa) * rows <= 16 else 2 if rows % 2 == 0 else 1
    codes = planes(shape, isa) * value_rows
    most = max(1, (isa.registers - codes - 2) // (codes + 1))
    return AttentionSchedule(rows, key_vectors, value_rows, _even(blocks, most))


def schedules(shape: AttentionShape, isa: Isa) -> Iterator[AttentionSchedule]:
    """Every schedule whose tiles fit the registers, the default first."""
    default = default_schedule(shape, isa)
    yield default
    key_blocks, value_blocks = (-(-n // isa.lanes) for n in (shape.keys, shape.value_width))
    for rows in range(1, min(MOST_ROWS, shape.queries) + 1):
        for key_vectors in range(1, min(MOST_VECTORS, key_blocks) + 1):
            if not _fits(rows, key_vectors, isa):
                continue
            for value_rows in (count for count in range(1, rows + 1) if rows % count == 0):
                for value_vectors in range(1, min(MOST_VECTORS, value_blocks) + 1):
                    found = AttentionSchedule(rows, key_vectors, value_rows, value_vectors)
                    if (
                        _fits(value_rows * planes(shape, isa), value_vectors, isa)
                        and found != default
                    ):
                        yield found


def _fits(codes: int, vectors: int, isa: Isa) -> bool:
    """Whether accumulators, codes and columns of a tile fit the registers."""
    return codes * vectors + codes + vectors <= isa.registers
