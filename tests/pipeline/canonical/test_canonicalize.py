"""Whole models: the canonical graph has the promised form and the model's logits."""

import os
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.canonical import PASSES, canonicalize
from pipeline.canonical.graph import ADD, CONV, LINEAR, MATMUL, MUL, calls, constant, shape
from pipeline.canonical.verify import CANONICAL, TOLERANCE, relative_difference
from pipeline.data.preprocessing import Preprocessing
from pipeline.errors import UserError
from pipeline.models import LoadedModel, ModelSpec, load_model

# (model, input size, counts of operators that show that every fold took place)
MODELS = [
    ("mobilevit_xxs", 64, {"conv2d": 35, "linear": 55, "add": 21, "mul": 0}),
    ("mobilevitv2_050", 64, {"conv2d": 82, "linear": 1, "add": 19, "mul": 9, "matmul": 9}),
    ("efficientformer_l1", 224, {"conv2d": 33, "linear": 7, "mul": 28, "add": 32}),
    ("efficientformerv2_s0", 64, {"conv2d": 83, "linear": 1, "mul": 0, "add": 30}),
    ("deit_tiny_patch16_224", 64, {"conv2d": 1, "linear": 73, "add": 25, "mul": 0}),
    ("deit_tiny_distilled_patch16_224", 64, {"conv2d": 1, "linear": 73, "add": 25, "mul": 0}),
    # 16x16 and 8x8 maps are padded to whole windows; a norm in front of a pad keeps its affine part
    ("swin_tiny_patch4_window7_224", 64, {"conv2d": 1, "linear": 76, "mul": 1 + 4}),
]


@pytest.fixture(scope="module", params=MODELS, ids=[f"{name}@{size}" for name, size, _ in MODELS])
def case(request):
    name, size, expected = request.param
    loaded = load_model(ModelSpec(name, random_seed=0, num_classes=10, input_size=size))
    return loaded, canonicalize(loaded), expected


def test_logits_equal_the_models(case):
    loaded, gm, _ = case
    assert relative_difference(gm, loaded) <= TOLERANCE


def test_every_fold_took_place(case):
    _, gm, expected = case
    counts = Counter(str(node.target).split(".")[1] for node in calls(gm))
    assert {name: counts[name] for name in expected} == expected


def test_graph_has_the_canonical_form(case):
    loaded, gm, _ = case
    side = loaded.preprocessing.input_size
    (image,) = gm.graph.find_nodes(op="placeholder")
    assert image.name == "image" and shape(image) == (1, side, side, 3)
    first = next(calls(gm))
    assert first.target is torch.ops.aten.permute.default and first.args == (image, [0, 3, 1, 2])
    assert shape(gm.graph.output_node().args[0]) == (1, loaded.num_classes)
    for node in calls(gm):
        assert node.target in CANONICAL and not node.kwargs
        assert node.meta["val"].shape == node.meta["val"].to("meta").shape
        assert isinstance(node.meta["module_path"], str)


def test_shapes_in_the_metadata_are_the_real_ones(case):
    _, gm, _ = case
    seen = {}

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n):
            seen[n] = super().run_node(n)
            return seen[n]

    image = gm.graph.find_nodes(op="placeholder")[0]
    with torch.no_grad():
        Recorder(gm).run(torch.zeros(shape(image)))
    assert all(tuple(seen[node].shape) == shape(node) for node in calls(gm))


def test_constants_are_float_buffers_second_in_add_and_mul(case):
    _, gm, _ = case
    assert not list(gm.parameters())
    assert all(buffer.dtype == torch.float32 for buffer in gm.buffers())
    for node in calls(gm, ADD, MUL):
        assert constant(gm, node.args[0]) is None
        value = constant(gm, node.args[1])
        assert value is None or value.dim() == len(shape(node))


def test_projections_are_named_after_their_modules(case):
    loaded, gm, _ = case
    modules = dict(loaded.module.named_modules())
    for node in calls(gm, CONV, LINEAR, MATMUL):
        path = node.meta["module_path"].split("[")[0]
        assert path in modules
    paths = [node.meta["module_path"] for node in calls(gm, CONV, LINEAR)]
    assert len(set(paths)) == len(paths)


class Toy(nn.Module):
    """A classifier with one operator of choice in the middle."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.stem, self.middle, self.head = nn.Conv2d(3, 4, 3, padding=1), middle, nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.middle(self.stem(x)).mean((2, 3)))


def loaded_toy(middle: nn.Module) -> LoadedModel:
    module = Toy(middle).eval().requires_grad_(False)
    return LoadedModel("toy", module, Preprocessing(input_size=8), 2, "toy")


@pytest.mark.parametrize(
    "middle, operator", [(nn.ELU(), "elu"), (nn.GELU(approximate="tanh"), "gelu")]
)
def test_unknown_operator_is_named_with_its_module(middle, operator):
    with pytest.raises(UserError, match=rf"{operator}.*'middle'"):
        canonicalize(loaded_toy(middle))


def test_preprocessing_with_padding_is_exact_at_the_border():
    gm = canonicalize(loaded_toy(nn.ReLU()))
    (conv,) = calls(gm, CONV)
    (add,) = conv.users
    assert conv.args[2] is None
    assert add.target is ADD and constant(gm, add.args[1]).shape == (1, 4, 8, 8)


def test_wrong_rewrite_is_caught(monkeypatch):
    def spoil(gm):
        gm.head_weight.add_(0.01)

    passes = (*PASSES[:-1], ("spoil", spoil))
    monkeypatch.setattr("pipeline.canonical.pipeline.PASSES", passes)
    with pytest.raises(UserError, match="differs from the model"):
        canonicalize(loaded_toy(nn.ReLU()))


def test_a_model_that_overflows_is_told_from_a_wrong_rewrite():
    loaded = loaded_toy(nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 1), nn.SiLU()))
    middle: nn.Sequential = loaded.module.middle
    middle[1].weight.fill_(3e38)
    with pytest.raises(UserError, match=r"produces NaN or infinity .* first at middle\.1; check"):
        canonicalize(loaded)


def test_each_pass_can_be_observed():
    names = []
    canonicalize(loaded_toy(nn.ReLU()), observe=lambda name, gm: names.append(name))
    assert names[0] == "make_functional" and names[-1] == "tidy"


CHECKPOINTS = [
    ("deit_tiny_patch16_224", "deit_tiny_patch16_224.safetensors", None),
    ("mobilevit_xxs", "mobilevit_xxs_imagenette_128.safetensors", 128),
]


@pytest.mark.parametrize("name, file, size", CHECKPOINTS, ids=[name for name, *_ in CHECKPOINTS])
def test_trained_weights_survive(name, file, size):
    folder = os.environ.get("POCKETVIT_DATA")
    if folder is None:
        pytest.skip("POCKETVIT_DATA does not name a folder with trained checkpoints")
    loaded = load_model(ModelSpec(name, checkpoint=Path(folder) / file, input_size=size))
    assert relative_difference(canonicalize(loaded), loaded) <= TOLERANCE / 10
