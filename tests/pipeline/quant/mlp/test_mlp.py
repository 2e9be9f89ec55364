"""MLPs are found, get ReLU, and learn to do with it."""

import pytest
import torch

from pipeline.errors import UserError
from pipeline.quant.evaluate import sqnr_db
from pipeline.quant.mlp.rewrite import RELU, find_mlps, rectify
from pipeline.quant.mlp.settings import MlpReconstruct
from pipeline.quant.mlp.train import reconstruct_mlps
from pipeline.quant.plan import make_plan
from pipeline.quant.quantized import quantize_model
from pipeline.quant.recipe import Recipe, parse_recipe
from pipeline.quant.reconstruct.settings import Reconstruct
from pipeline.quant.simulate import simulate
from pipeline.quant.storage import load_quantized, save_quantized

aten = torch.ops.aten
FAST = MlpReconstruct(iterations=150, batch=16, rate=1e-2, clamp=1.0)


def _convolutions(builder, act):
    x = builder.stem()
    hidden = builder.call(act, builder.conv(x, 16))
    x = builder.call(aten.add.Tensor, x, builder.conv(hidden, 8))
    return builder.head(builder.tokens(x))


def _train(graph, images, settings):
    plan = make_plan(graph.graph, Recipe(name="x"))
    results = reconstruct_mlps(graph, plan, settings, images)
    tensors = {}
    for mlp in find_mlps(graph.graph):
        result = results[mlp.act.name]
        tensors |= {mlp.expand.name: result.expand, mlp.reduce.name: result.reduce}
    return rectify(graph, results, tensors)


def test_mlps_of_linears_are_found(vit) -> None:
    (mlp,) = find_mlps(vit.graph)
    assert [n.meta["module_path"] for n in (mlp.expand, mlp.act, mlp.reduce)] == [
        "mlp.fc1",
        "mlp.act",
        "mlp.fc2",
    ]


@pytest.mark.parametrize("act", [aten.gelu.default, aten.silu.default])
def test_mlps_of_pointwise_convolutions_are_found(builder, act) -> None:
    assert len(find_mlps(_convolutions(builder, act).graph)) == 1


def test_an_activation_with_two_readers_is_left_alone(builder) -> None:
    x = builder.stem()
    hidden = builder.call(aten.silu.default, builder.conv(x, 8))
    x = builder.call(aten.add.Tensor, hidden, builder.conv(hidden, 8))
    assert find_mlps(builder.head(builder.tokens(x)).graph) == []


def test_rectifying_changes_a_copy(vit, images) -> None:
    name = find_mlps(vit.graph)[0].act.name
    result = rectify(vit, [name])
    targets = {n.name: n.target for n in result.graph.nodes}
    assert targets[name] is RELU
    assert find_mlps(vit.graph)[0].act.target is aten.gelu.default
    with pytest.raises(KeyError):
        rectify(vit, ["add_tensor"])


@pytest.mark.parametrize("importance", ["none", "aph"])
@pytest.mark.parametrize("act", [aten.gelu.default, aten.silu.default])
def test_a_trained_mlp_repeats_the_float_one(builder, images, act, importance) -> None:
    graph = _convolutions(builder, act)
    plain = rectify(graph, [mlp.act.name for mlp in find_mlps(graph.graph)])
    trained = _train(graph, images, FAST.model_copy(update={"importance": importance}))
    wanted = simulate(graph, images)
    assert sqnr_db(wanted, simulate(trained, images)) > sqnr_db(wanted, simulate(plain, images)) + 3


def test_what_lies_above_the_clamp_is_learned_too(vit, images) -> None:
    """With half of all positive values clipped, the network without the clamp still works."""
    trained = _train(vit, images, FAST.model_copy(update={"clamp": 0.5}))
    plain = rectify(vit, [find_mlps(vit.graph)[0].act.name])
    wanted = simulate(vit, images)
    assert sqnr_db(wanted, simulate(trained, images)) > sqnr_db(wanted, simulate(plain, images))


def test_a_network_without_mlps_is_refused(builder, images) -> None:
    graph = builder.head(builder.tokens(builder.stem()))
    with pytest.raises(UserError, match="no MLP of two linears"):
        reconstruct_mlps(graph, make_plan(graph.graph, Recipe(name="x")), FAST, images)


def test_a_quantized_model_with_trained_mlps_is_saved_and_loaded(vit, images, tmp_path) -> None:
    recipe = parse_recipe(
        {
            "name": "x",
            "equalize": {},
            "mlp": FAST.model_copy(update={"iterations": 5}).model_dump(),
            "reconstruct": Reconstruct(iterations=2, batch=4).model_dump(),
        },
        "x",
    )
    quantized = quantize_model(vit, images, recipe, {})
    save_quantized(quantized, tmp_path)
    loaded = load_quantized(tmp_path, vit)
    assert loaded.quantization.rectified == (find_mlps(vit.graph)[0].act.name,)
    assert (simulate(loaded.graph, images[:2]) == simulate(quantized.graph, images[:2])).all()
    assert not any(n.target is aten.gelu.default for n in loaded.graph.graph.nodes)
