"""Saved models come back bit for bit, or say why not."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.quant.fingerprint import fingerprint
from pipeline.quant.quantized import quantize_model
from pipeline.quant.recipe import load_recipe
from pipeline.quant.simulate import simulate
from pipeline.quant.storage import (
    load_quantized,
    read_model_identity,
    save_quantized,
)


@pytest.fixture
def saved(vit, images, tmp_path: Path):
    quantized = quantize_model(vit, images, load_recipe("w8a8-adalog"), {"name": "toy"})
    save_quantized(quantized, tmp_path / "q")
    return quantized


def test_loading_gives_identical_outputs(saved, vit, images, tmp_path: Path) -> None:
    loaded = load_quantized(tmp_path / "q", vit)
    assert fingerprint(loaded.graph) == fingerprint(saved.graph)
    assert loaded.recipe == saved.recipe
    assert loaded.quantization.activations == saved.quantization.activations
    assert np.array_equal(simulate(loaded.graph, images[:3]), simulate(saved.graph, images[:3]))


def test_identity_of_the_float_model_can_be_read_alone(saved, tmp_path: Path) -> None:
    assert read_model_identity(tmp_path / "q") == {"name": "toy"}


def test_saving_twice_writes_the_same_bytes(saved, tmp_path: Path) -> None:
    save_quantized(saved, tmp_path / "again")
    for name in ("quantized.json", "quantized.safetensors"):
        assert (tmp_path / "q" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_other_weights_are_refused(saved, vit, tmp_path: Path) -> None:
    linear = next(n for n in vit.graph.nodes if n.meta.get("module_path") == "mlp.fc1")
    getattr(vit, linear.args[1].target).mul_(1.5)
    with pytest.raises(UserError, match="was made from another model"):
        load_quantized(tmp_path / "q", vit)


def test_another_model_is_refused(saved, builder, tmp_path: Path) -> None:
    x = builder.conv(builder.conv(builder.stem(), 8), 8)
    with pytest.raises(UserError, match="was made from another model"):
        load_quantized(tmp_path / "q", builder.head(builder.tokens(x)))


def test_missing_and_damaged_files_are_named(saved, vit, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="quantized.json is missing"):
        load_quantized(tmp_path / "nowhere", vit)
    (tmp_path / "q" / "quantized.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"Cannot read .*quantized\.safetensors"):
        load_quantized(tmp_path / "q", vit)


def test_other_versions_are_refused(saved, vit, tmp_path: Path) -> None:
    path = tmp_path / "q" / "quantized.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 99}))
    with pytest.raises(UserError, match="version 99 but this program reads 4"):
        load_quantized(tmp_path / "q", vit)
