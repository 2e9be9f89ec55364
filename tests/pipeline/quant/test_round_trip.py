"""Saved models of every feature of recipes come back bit for bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx

from pipeline.quant.fingerprint import fingerprint
from pipeline.quant.quantized import QuantizedModel, quantize_model
from pipeline.quant.quantizers.twin import TwinQuantizer
from pipeline.quant.quantizers.uniform import UniformQuantizer
from pipeline.quant.recipe import parse_recipe
from pipeline.quant.simulate import simulate
from pipeline.quant.storage import load_quantized, save_quantized
from tests.pipeline.quant.conftest import Builder
from tests.pipeline.quant.networks import hybrid, plain_transformer

aten = torch.ops.aten

FEATURES: dict[str, dict[str, Any]] = {
    "equalized norms": {"equalize": {}},
    "equalized, all tensors": {"equalize": {"tensors": "all", "exponents": [0.0, 0.5, 1.0]}},
    "biases": {"bias_correction": True},
    "compensated": {"weights": {"bits": 4, "symmetric": False, "rounding": "compensated"}},
    "twin": {"softmax": {"format": "twin"}, "post_gelu": {"format": "twin"}},
    "log-sqrt2": {"softmax": {"format": "log-sqrt2"}},
    "log2": {"softmax": {"format": "log2"}, "activations": {"bits": 4}},
    "adalog": {"softmax": {"format": "adalog"}, "post_gelu": {"format": "adalog", "q": 30}},
    "per head": {"activations": {"bits": 6, "per_head": True}},
    "few bits": {
        "weights": {"bits": 3, "stem_bits": 8, "head_bits": 6},
        "activations": {"bits": 3},
    },
    "percentile": {"activations": {"roles": {"ln_out": "percentile"}, "percentile": 99.0}},
    "searched": {
        "activations": {"bits": 4},
        "search": {"count": 8, "zero_points": 2, "refine": 2, "schemes": True},
    },
    "everything": {
        "weights": {"bits": 4, "symmetric": False, "rounding": "compensated"},
        "activations": {"bits": 4, "per_head": True},
        "softmax": {"format": "adalog"},
        "post_gelu": {"format": "twin"},
        "equalize": {"tensors": "all"},
        "bias_correction": True,
        "search": {"count": 8},
    },
}


def split_attention() -> fx.GraphModule:
    """Attention with projections of their own, so that q, k and v have heads."""
    b = Builder()
    x = b.norm(b.tokens(b.stem()))
    q, k, v = (
        b.call(
            aten.permute.default,
            b.call(aten.reshape.default, b.linear(x, 8), [1, 64, 2, 4]),
            [0, 2, 1, 3],
        )
        for _ in range(3)
    )
    logits = b.call(aten.matmul.default, q, b.call(aten.permute.default, k, [0, 1, 3, 2]))
    mixed = b.call(aten.matmul.default, b.call(aten.softmax.int, logits, -1), v)
    mixed = b.call(aten.permute.default, mixed, [0, 2, 1, 3])
    return b.head(b.linear(b.call(aten.reshape.default, mixed, [1, 64, 8]), 8))


def quantized(graph: fx.GraphModule, images: Any, feature: str) -> QuantizedModel:
    content = {"name": "test", "calibration_images": 4} | FEATURES[feature]
    return quantize_model(graph, images, parse_recipe(content, "test"), {"name": "toy"})


@pytest.mark.parametrize("feature", FEATURES)
def test_what_is_loaded_is_what_was_saved(feature: str, images, tmp_path: Path) -> None:
    graph = split_attention() if feature == "per head" else plain_transformer(Builder())
    saved = quantized(graph, images, feature)
    save_quantized(saved, tmp_path)
    loaded = load_quantized(tmp_path, graph)
    assert loaded.recipe == saved.recipe
    assert fingerprint(loaded.graph) == fingerprint(saved.graph)
    assert np.array_equal(simulate(loaded.graph, images[:2]), simulate(saved.graph, images[:2]))
    ours, theirs = saved.quantization, loaded.quantization
    assert theirs.activations == ours.activations
    assert theirs.equalizations == ours.equalizations
    assert (theirs.bits, theirs.images) == (ours.bits, ours.images)
    assert theirs.weights.keys() == ours.weights.keys()
    for name, weight in ours.weights.items():
        assert torch.equal(theirs.weights[name].codes, weight.codes)
        assert torch.equal(theirs.weights[name].scale, weight.scale)
    assert theirs.biases.keys() == ours.biases.keys()
    assert all(torch.equal(theirs.biases[name], bias) for name, bias in ours.biases.items())


def test_features_leave_their_traces(images) -> None:
    def found(feature: str) -> QuantizedModel:
        return quantized(plain_transformer(Builder()), images, feature)

    equalized = found("equalized norms").quantization.equalizations
    assert equalized and all(one.shift for one in equalized)
    assert not found("twin").quantization.equalizations
    assert len(found("biases").quantization.biases) == 10
    twins = [
        q for q in found("twin").quantization.activations.values() if isinstance(q, TwinQuantizer)
    ]
    assert len(twins) == 4


def test_a_hybrid_network_with_everything(images, tmp_path: Path) -> None:
    graph = hybrid(Builder())
    saved = quantized(graph, images, "everything")
    save_quantized(saved, tmp_path)
    assert fingerprint(load_quantized(tmp_path, graph).graph) == fingerprint(saved.graph)


def test_a_scale_per_head_survives(images, tmp_path: Path) -> None:
    graph = split_attention()
    saved = quantized(graph, images, "everything")
    by_head = {
        key: q
        for key, q in saved.quantization.activations.items()
        if isinstance(q, UniformQuantizer) and not q.is_per_tensor
    }
    assert len(by_head) == 3 and all(len(set(q.scale)) == 2 for q in by_head.values())
    save_quantized(saved, tmp_path)
    loaded = load_quantized(tmp_path, graph)
    assert {key: loaded.quantization.activations[key] for key in by_head} == by_head
    assert np.array_equal(simulate(loaded.graph, images[:2]), simulate(saved.graph, images[:2]))
