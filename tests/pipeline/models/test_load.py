"""Models by name, weights from a file, and errors that say what to do."""

import json

import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import UserError
from pipeline.models import ModelSpec, load_model

NAME = "mobilevit_xxs"
SIZE = 64


@pytest.fixture(scope="module")
def weights():
    """State of a network with 7 classes."""
    module = load_model(ModelSpec(NAME, random_seed=3, num_classes=7, input_size=SIZE)).module
    return module.state_dict()


@pytest.fixture
def saved(weights, tmp_path):
    """Writes the weights, changed by a function, and returns the path."""

    def write(name="model.safetensors", metadata=None, change=None):
        path, content = tmp_path / name, dict(weights)
        content = change(content) if change else content
        if path.suffix == ".safetensors":
            save_file(content, path, metadata=metadata)
        else:
            torch.save(content, path)
        return path

    return write


def spec(path, **settings):
    return ModelSpec(NAME, checkpoint=path, **({"input_size": SIZE} | settings))


def assert_same_weights(loaded, weights):
    state = loaded.module.state_dict()
    assert all(torch.equal(state[name], weights[name]) for name in weights)


def test_safetensors_weights_and_number_of_classes(saved, weights):
    loaded = load_model(spec(saved()))
    assert_same_weights(loaded, weights)
    assert loaded.num_classes == 7
    assert loaded.family == "mobilevit"
    assert not loaded.module.training


@pytest.mark.parametrize("key", ["state_dict", "model", None])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_pickled_weights_in_their_usual_wrappings(key, prefix, saved, weights):
    def change(content):
        named = {prefix + name: tensor for name, tensor in content.items()}
        return {key: named, "epoch": 3} if key else named

    assert_same_weights(load_model(spec(saved("model.pth", change=change))), weights)


def test_half_precision_becomes_float32(saved):
    def change(content):
        return {k: v.half() if v.is_floating_point() else v for k, v in content.items()}

    loaded = load_model(spec(saved(change=change)))
    assert all(p.dtype == torch.float32 for p in loaded.module.parameters())


def test_metadata_gives_defaults_that_the_user_overrides(saved):
    metadata = {
        "pocketvit.input_size": "64",
        "pocketvit.mean": "[0.1, 0.2, 0.3]",
        "pocketvit.interpolation": json.dumps("bilinear"),
        "pocketvit.labels": json.dumps([f"class {i}" for i in range(7)]),
    }
    path = saved(metadata=metadata)
    loaded = load_model(ModelSpec(NAME, checkpoint=path, interpolation="nearest"))
    assert loaded.preprocessing.input_size == 64
    assert loaded.preprocessing.mean == (0.1, 0.2, 0.3)
    assert loaded.preprocessing.interpolation == "nearest"
    assert loaded.preprocessing.crop_pct == 0.9  # timm's
    assert loaded.labels == tuple(f"class {i}" for i in range(7))


def test_same_seed_same_weights_and_the_global_generator_is_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first, second, other = (
        load_model(ModelSpec(NAME, random_seed=seed, num_classes=3, input_size=SIZE)).module
        for seed in (1, 1, 2)
    )
    assert torch.equal(torch.rand(3), expected)
    pairs = list(zip(first.state_dict().values(), second.state_dict().values(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.head.fc.weight, other.head.fc.weight)


def test_random_weights_leave_no_constant_tensor():
    module = load_model(ModelSpec(NAME, random_seed=1, num_classes=3, input_size=SIZE)).module
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and tensor.numel() > 1:
            assert tensor.std() > 0, name
        if name.endswith("running_var"):
            assert tensor.min() > 0


@pytest.mark.parametrize(
    "name, size", [("efficientformerv2_s0", 64), ("deit_tiny_patch16_224", 96)]
)
def test_sizes_that_the_network_must_know_when_it_is_built(name, size):
    loaded = load_model(ModelSpec(name, random_seed=0, input_size=size))
    assert loaded.preprocessing.input_size == size


def rename(content):
    content["stem.strange"] = content.pop("stem.conv.weight")
    return content


def squeeze(content):
    content["stem.conv.weight"] = content["stem.conv.weight"][:, :1].clone()
    return content


def diverge(content):
    content["stem.conv.weight"] = torch.full_like(content["stem.conv.weight"], torch.nan)
    content["stem.bn.running_var"] = torch.full_like(content["stem.bn.running_var"], torch.inf)
    return content


USER_ERRORS = {
    "unknown name": (lambda _: ModelSpec("mobilvit_xxs", random_seed=0), "mobilevit_xxs"),
    "nothing like it": (lambda _: ModelSpec("qqqqqqqqqqqq", random_seed=0), "not in timm"),
    "no source": (lambda _: ModelSpec(NAME), "--checkpoint"),
    "two sources": (lambda _: ModelSpec(NAME, pretrained=True, random_seed=0), "choose one"),
    "absent": (lambda saved: spec(saved().with_name("absent.pth")), "does not exist"),
    "odd ending": (lambda saved: spec(saved("model.zip")), "ending"),
    "classes": (lambda saved: spec(saved(), num_classes=5), "7 classes but 5"),
    "other model": (
        lambda saved: ModelSpec("mobilevit_xs", checkpoint=saved(), input_size=SIZE),
        "wrong shape",
    ),
    "names": (lambda saved: spec(saved(change=rename)), "1 missing.*1 unexpected"),
    "shape": (lambda saved: spec(saved(change=squeeze)), r"\[16, 1, 3, 3\] instead of"),
    "NaN": (
        lambda saved: spec(saved(change=diverge)),
        r"NaN or infinity in 2 of its tensors \(stem\.bn\.running_var, stem\.conv\.weight\)",
    ),
    "no tensors": (lambda saved: spec(saved("a.pth", change=lambda _: {"a": 1})), "no tensors"),
    "bad metadata": (lambda saved: spec(saved(metadata={"pocketvit.mean": "x"})), "not JSON"),
    "too few labels": (
        lambda saved: spec(saved(metadata={"pocketvit.labels": '["one"]'})),
        "list of 7",
    ),
    "input size": (
        lambda _: ModelSpec("efficientformer_l1", random_seed=0, input_size=64),
        "does not accept 64x64",
    ),
}


@pytest.mark.parametrize("make, message", USER_ERRORS.values(), ids=USER_ERRORS.keys())
def test_user_errors_are_one_sentence_with_advice(make, message, saved):
    with pytest.raises(UserError, match=message) as caught:
        load_model(make(saved))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["broken.pth", "broken.safetensors"])
def test_damaged_file(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(b"\x80\x02not a checkpoint")
    with pytest.raises(UserError, match="broken"):
        load_model(spec(path))


def test_pickle_with_code_is_refused(tmp_path):
    path = tmp_path / "model.pth"
    torch.save({"model": torch.nn.Linear(1, 1)}, path)
    with pytest.raises(UserError, match="plain weights"):
        load_model(spec(path))


def test_unreachable_pretrained_weights(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no route")

    monkeypatch.setattr("timm.create_model", fail)
    with pytest.raises(UserError, match="no route.*--checkpoint"):
        load_model(ModelSpec(NAME, pretrained=True))
