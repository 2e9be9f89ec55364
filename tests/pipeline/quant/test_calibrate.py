"""Calibration: deterministic, streaming, clear about bad input."""

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from pipeline.quant import calibrate as stage
from pipeline.quant.calibration import Calibration
from pipeline.quant.plan import make_plan
from pipeline.quant.quantizers.uniform import UniformQuantizer
from pipeline.quant.recipe import load_recipe
from pipeline.quant.roles import Role

W8A8 = load_recipe("w8a8")


def calibrate(graph, images, recipe, progress=None) -> Calibration:
    return stage.calibrate(graph, images, recipe, make_plan(graph.graph, recipe), progress)


def test_same_photos_in_any_order_give_the_same_result(vit, images) -> None:
    assert calibrate(vit, images, W8A8) == calibrate(vit, reversed(images), W8A8)


def test_photos_are_consumed_one_at_a_time_and_only_as_many_as_needed(vit, images) -> None:
    done: list[tuple[int, int]] = []

    def stream():
        for index in range(1000):
            assert len(done) == index
            yield images[index % 32]

    calibrate(vit, stream(), W8A8, progress=lambda n, total: done.append((n, total)))
    assert done == [(n, 32) for n in range(1, 33)]


def test_json_round_trip_is_exact(vit, images) -> None:
    for name in ("w8a8", "w8a8-adalog"):
        calibration = calibrate(vit, images, load_recipe(name))
        assert Calibration.from_json(calibration.to_json()) == calibration


def test_formats_fix_image_and_softmax(vit, images) -> None:
    tensors = calibrate(vit, images, W8A8).tensors
    for name, expected in (("image", 1.0), ("softmax_int", 2.0**-15)):
        found = tensors[name]
        assert isinstance(found, UniformQuantizer)
        assert (found.scale, found.zero_point) == ((expected,), (0,))


def test_16_bit_ranges_leave_room(builder, images) -> None:
    x = builder.tokens(builder.stem())
    y = builder.call(torch.ops.aten.add.Tensor, x, builder.linear(builder.norm(x), 8))
    graph = builder.head(y)
    tensors = calibrate(graph, images, W8A8).tensors
    with torch.no_grad():
        captured = []
        for image in images:
            interpreter = torch.fx.Interpreter(graph, garbage_collect_values=False)
            interpreter.run(torch.from_numpy(image).float().unsqueeze(0))
            captured.append(interpreter.env[y].abs().max())
    assert tensors[y.name].scale[0] * 32767 == pytest.approx(1.25 * float(max(captured)), rel=1e-5)


def test_too_few_photos(vit, images) -> None:
    with pytest.raises(UserError, match="needs 32 photos but there are only 5"):
        calibrate(vit, images[:5], W8A8)


def test_wrong_shape_of_a_photo(vit) -> None:
    with pytest.raises(UserError, match=r"shape \[9, 8, 3\]"):
        calibrate(vit, [np.zeros((9, 8, 3), np.uint8)], W8A8)


def test_nan_names_the_module_where_it_begins(vit, images) -> None:
    weight = next(n for n in vit.graph.nodes if n.meta.get("module_path") == "mlp.fc1").args[1]
    getattr(vit, weight.target)[0, 0] = torch.nan
    with pytest.raises(UserError, match=r"NaN or infinity at mlp\.fc1"):
        calibrate(vit, images, W8A8)


def test_roles_can_have_observers_of_their_own(vit, images) -> None:
    settings = W8A8.activations
    clipped = settings.model_copy(
        update={"observer": "minmax", "percentile": 80.0, "roles": {Role.LN_OUT: "percentile"}}
    )
    plain = settings.model_copy(update={"observer": "minmax", "roles": {}})
    first, second = (
        calibrate(vit, images, W8A8.model_copy(update={"activations": a})).tensors
        for a in (clipped, plain)
    )
    assert first["layer_norm_default"].scale < second["layer_norm_default"].scale
    assert first["matmul_default_1"] == second["matmul_default_1"]


@pytest.mark.parametrize("bits", [8, 16])
def test_preactivations_are_not_resolved_where_the_curve_is_flat(builder, images, bits) -> None:
    x = builder.stem()
    builder.tensors[x.args[2].target].copy_(torch.tensor([-100.0] * 4 + [0.0] * 4))
    graph = builder.head(builder.tokens(builder.call(torch.ops.aten.gelu.default, x)))
    recipe = W8A8.model_copy(update={"preact_bits": bits})
    found = calibrate(graph, images, recipe).tensors[x.name]
    lowest = (-128 - found.zero_point[0] if bits == 8 else -32767) * found.scale[0]
    assert lowest > -8
