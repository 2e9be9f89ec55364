"""The memory plan never overlaps what lives at once, and wastes little."""

from itertools import combinations, pairwise

from hypothesis import given
from hypothesis import strategies as st

from tvm_passes.aot.plan import ALIGNMENT, Lifetime, align, plan_memory

lifetimes = st.builds(
    lambda nbytes, first, length: Lifetime(nbytes, first, first + length),
    st.integers(1, 5000),
    st.integers(0, 30),
    st.integers(0, 12),
)


@given(st.lists(lifetimes, max_size=30))
def test_buffers_that_live_at_once_share_no_byte(buffers: list[Lifetime]) -> None:
    plan = plan_memory(buffers)
    for (a, i), (b, j) in combinations(zip(buffers, plan.offsets, strict=True), 2):
        if a.overlaps(b):
            assert i + a.nbytes <= j or j + b.nbytes <= i


@given(st.lists(lifetimes, max_size=30))
def test_offsets_are_aligned_and_inside_the_arena(buffers: list[Lifetime]) -> None:
    plan = plan_memory(buffers)
    assert plan.live_bytes <= plan.arena_bytes
    for buffer, offset in zip(buffers, plan.offsets, strict=True):
        assert offset % ALIGNMENT == 0
        assert offset + buffer.nbytes <= plan.arena_bytes


def residual_network(sizes: list[int]) -> list[Lifetime]:
    """Pairs of layers with a skip connection around each."""
    buffers = []
    for block, size in enumerate(sizes):
        buffers.append(Lifetime(size, 3 * block, 3 * block + 3))  # the residual stream
        buffers.append(Lifetime(4 * size, 3 * block + 1, 3 * block + 2))  # the expanded hidden
        buffers.append(Lifetime(size, 3 * block + 2, 3 * block + 3))
    return buffers


@given(st.lists(st.integers(1, 200_000), min_size=1, max_size=20))
def test_a_network_of_residual_blocks_needs_at_most_1_3_times_its_live_set(
    sizes: list[int],
) -> None:
    plan = plan_memory(residual_network(sizes))
    assert plan.arena_bytes <= 1.3 * plan.live_bytes


def test_live_bytes_is_the_largest_rounded_sum() -> None:
    buffers = [Lifetime(100, 0, 1), Lifetime(1, 1, 2), Lifetime(64, 2, 3)]
    assert plan_memory(buffers).live_bytes == 128 + 64


def test_a_chain_alternates_between_two_places() -> None:
    chain = [Lifetime(640, layer, layer + 1) for layer in range(10)]
    plan = plan_memory(chain)
    assert plan.arena_bytes == 2 * 640
    assert all(a != b for a, b in pairwise(plan.offsets))


def test_sizes_round_up_to_a_cache_line() -> None:
    assert [align(n) for n in (0, 1, 64, 65)] == [0, 64, 64, 128]
