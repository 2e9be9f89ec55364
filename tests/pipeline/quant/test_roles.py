"""Roles are read from structure: what produces a tensor and what reads it."""

import torch
from torch import fx

from pipeline.operators import DYNAMIC_RELU
from pipeline.quant.roles import LONGEST_ROW, Role, resolve_roles
from tests.pipeline.quant.conftest import Builder

aten = torch.ops.aten


def _by_path(graph: fx.GraphModule) -> dict[str, Role]:
    roles = resolve_roles(graph.graph).tensors
    return {
        n.meta["module_path"]: roles[n.name]
        for n in graph.graph.nodes
        if n.name in roles and "module_path" in n.meta
    }


def test_transformer_block(vit) -> None:
    roles = _by_path(vit)
    expected = {
        "stem": Role.RESIDUAL,  # nothing but the position embedding lies before the stream
        "pos_embed": Role.RESIDUAL,
        "attn.qkv": Role.OPERAND,
        "attn.qk": Role.FUSED,
        "attn.softmax": Role.SOFTMAX,
        "attn.av": Role.ATTENTION_OUT,
        "attn.proj": Role.BRANCH,
        "block.add1": Role.RESIDUAL,
        "mlp.fc1": Role.PREACT,
        "mlp.act": Role.POST_GELU,
        "mlp.fc2": Role.BRANCH,
        "block.add2": Role.RESIDUAL,
        "head": Role.OUTPUT,
    }
    assert {path: roles[path] for path in expected} == expected


def test_stem_and_head_are_found(vit) -> None:
    table = resolve_roles(vit.graph)
    paths = {n.name: n.meta.get("module_path") for n in vit.graph.nodes}
    assert [paths[n] for n in table.stem] == ["stem"]
    assert [paths[n] for n in table.head] == ["head"]


def test_names_do_not_matter(vit) -> None:
    before = list(resolve_roles(vit.graph).tensors.values())
    for index, node in enumerate(vit.graph.nodes):
        node.name = f"softmax_{index}"
        node.meta["module_path"] = "attn.qkv"
    assert list(resolve_roles(vit.graph).tensors.values()) == before


def test_separate_projections_are_query_key_and_value(builder) -> None:
    x = builder.norm(builder.tokens(builder.stem()))
    q, k, v = (builder.linear(x, 8, path=name) for name in "qkv")
    transposed = builder.call(aten.permute.default, k, [0, 2, 1])
    weights = builder.call(aten.softmax.int, builder.call(aten.matmul.default, q, transposed), -1)
    roles = _by_path(builder.head(builder.call(aten.matmul.default, weights, v)))
    assert (roles["q"], roles["k"], roles["v"]) == (Role.Q, Role.K, Role.V)


def test_clamp_fuses_into_its_convolution(builder) -> None:
    x = builder.stem()
    x = builder.call(aten.relu.default, x, path="relu")
    roles = _by_path(builder.head(builder.tokens(x)))
    assert (roles["stem"], roles["relu"]) == (Role.FUSED, Role.ACT_OUT)


def test_bias_map_belongs_to_its_convolution(builder) -> None:
    x = builder.stem()
    x = builder.call(aten.add.Tensor, x, builder.random_constant(1, 8, 8, 8), path="map")
    x = builder.call(aten.silu.default, x, path="silu")
    roles = _by_path(builder.head(builder.tokens(x)))
    assert (roles["stem"], roles["map"], roles["silu"]) == (Role.FUSED, Role.PREACT, Role.ACT_OUT)


def test_scaled_sum_has_no_quantizer_between(builder) -> None:
    x = builder.conv(builder.stem(), 8, path="conv")
    pool = builder.call(
        aten.avg_pool2d.default, x, [3, 3], [1, 1], [1, 1], False, False, path="pool"
    )
    left = builder.call(aten.mul.Tensor, x, builder.random_constant(8, 1, 1), path="left")
    right = builder.call(aten.mul.Tensor, pool, builder.random_constant(8, 1, 1), path="right")
    total = builder.call(aten.add.Tensor, left, right, path="sum")
    roles = _by_path(builder.head(builder.tokens(total)))
    assert (roles["left"], roles["right"]) == (Role.FUSED, Role.FUSED)
    assert (roles["conv"], roles["pool"], roles["sum"]) == (
        Role.RESIDUAL, Role.POOL, Role.RESIDUAL,
    )  # fmt: skip


def test_talking_heads_store_logits_and_mixed_weights(builder) -> None:
    x = builder.tokens(builder.stem())
    heads = builder.call(aten.reshape.default, x, [1, 2, 16, 16])
    logits = builder.call(aten.matmul.default, heads, heads, path="qk")
    mixed = builder.conv(logits, 2, path="before")
    weights = builder.call(aten.softmax.int, mixed, -1, path="softmax")
    weights = builder.conv(weights, 2, path="after")
    values = builder.call(aten.matmul.default, weights, heads, path="av")
    graph = builder.head(builder.call(aten.reshape.default, values, [1, 64, 8]))
    roles = _by_path(graph)
    assert [roles[p] for p in ("qk", "before", "softmax", "after", "av")] == [
        Role.LOGITS, Role.LOGITS, Role.SOFTMAX_MIXED, Role.MIXED_HEADS, Role.ATTENTION_OUT,
    ]  # fmt: skip
    assert len(resolve_roles(graph.graph).heads_mixers) == 2


def test_softmax_over_pixels_reads_stored_logits(builder) -> None:
    query = builder.conv(builder.stem(), 8, path="query")
    context = builder.call(aten.softmax.int, query, -1, path="softmax")
    weighted = builder.call(aten.mul.Tensor, query, context, path="mul")
    roles = _by_path(builder.head(builder.tokens(weighted)))
    assert [roles[p] for p in ("query", "softmax", "mul")] == [
        Role.LOGITS, Role.SOFTMAX_MIXED, Role.MUL,
    ]  # fmt: skip


def test_softmax_over_pixels_is_no_attention_even_as_a_matmul(builder) -> None:
    x = builder.conv(builder.stem(), 8, path="query")
    weights = builder.call(aten.softmax.int, x, -1, path="softmax")
    product = builder.call(aten.matmul.default, weights, x)
    roles = _by_path(builder.head(builder.tokens(product)))
    assert roles["softmax"] is Role.SOFTMAX_MIXED


def test_gelu_before_a_padded_convolution_is_no_shifted_format(builder) -> None:
    x = builder.call(aten.gelu.default, builder.stem(), path="gelu")
    x = builder.conv(x, 8, kernel=3, padding=1)
    assert _by_path(builder.head(builder.tokens(x)))["gelu"] is Role.ACT_OUT


def test_sum_that_only_convolutions_read_leaves_the_stream(builder) -> None:
    x = builder.stem()
    total = builder.call(aten.add.Tensor, x, builder.conv(x, 8), path="sum")
    roles = _by_path(builder.head(builder.tokens(builder.conv(total, 8))))
    assert (roles["stem"], roles["sum"]) == (Role.RESIDUAL, Role.SUM)


def test_concatenation_and_its_inputs_are_stored(builder) -> None:
    x = builder.conv(builder.stem(), 8, path="left")
    y = builder.call(aten.silu.default, builder.conv(x, 8), path="right")
    both = builder.call(aten.cat.default, [x, y], 1, path="cat")
    roles = _by_path(builder.head(builder.tokens(builder.conv(both, 8))))
    assert [roles[p] for p in ("left", "right", "cat")] == [
        Role.CONV_OUT, Role.ACT_OUT, Role.CAT,
    ]  # fmt: skip


def _tokens(builder, count: int = 3, width: int = 8) -> fx.Node:
    """Normalised tokens with the constants of the norm apart, as they are read by a sum, too."""
    z = builder.call(aten.mean.dim, builder.stem(), [2], False)
    z = builder.call(
        aten.slice.Tensor, builder.call(aten.permute.default, z, [0, 2, 1]), 1, 0, count
    )
    z = builder.call(aten.layer_norm.default, z, [width], None, None, 1e-6, path="norm")
    z = builder.call(aten.mul.Tensor, z, builder.random_constant(1, 1, width), path="gamma")
    return builder.call(aten.add.Tensor, z, builder.random_constant(1, 1, width), path="beta")


def test_tokens_behind_a_norm_are_a_residual_stream(builder) -> None:
    z = _tokens(builder)
    y = builder.linear(z, 8, path="q")
    gate = builder.call(aten.hardsigmoid.default, builder.linear(z, 8, path="alpha"), path="gate")
    y = builder.call(aten.mul.Tensor, y, gate, path="gated")
    z = builder.call(aten.add.Tensor, z, builder.linear(y, 8, path="proj"), path="sum")
    roles = _by_path(builder.head(z))
    expected = {
        "norm": Role.NORMALIZED,
        "gamma": Role.FUSED,
        "beta": Role.RESIDUAL,
        "alpha": Role.PREACT,
        "gate": Role.TOKEN,
        "gated": Role.TOKEN,
        "proj": Role.BRANCH,
        "sum": Role.RESIDUAL,
    }
    assert {path: roles[path] for path in expected} == expected


def test_gates_of_a_dynamic_relu_have_a_role_of_their_own(builder) -> None:
    x = builder.stem()
    pooled = builder.call(aten.mean.dim, x, [2, 3], False)
    gates = []
    for name in ("first", "second"):
        gate = builder.call(aten.hardsigmoid.default, builder.linear(pooled, 8), path=name)
        gates.append(builder.call(aten.reshape.default, gate, [1, 8, 1, 1]))
    x = builder.conv(x, 8, path="conv")
    x = builder.call(DYNAMIC_RELU, x, *gates, path="act")
    roles = _by_path(builder.head(builder.tokens(x)))
    assert (roles["first"], roles["second"]) == (Role.GATE, Role.GATE)
    assert (roles["conv"], roles["act"]) == (Role.PREACT, Role.ACT_OUT)


def test_weights_of_long_rows_are_never_stored() -> None:
    for size, role in ((32, Role.SOFTMAX), (33, Role.FUSED)):
        assert (size * size > LONGEST_ROW) == (role is Role.FUSED)
        builder = Builder(size)
        x = builder.tokens(builder.stem())
        q, k, v = (builder.linear(x, 8) for _ in range(3))
        scores = builder.call(
            aten.matmul.default, q, builder.call(aten.permute.default, k, [0, 2, 1])
        )
        weights = builder.call(aten.softmax.int, scores, -1, path="softmax")
        roles = _by_path(builder.head(builder.call(aten.matmul.default, weights, v)))
        assert roles["softmax"] is role
