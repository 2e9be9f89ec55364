"""Bits of products reach their target, and the whole way to storage and back keeps them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from pipeline.canonical import canonicalize
from pipeline.data.photos import list_photos
from pipeline.data.preprocess import to_pixels
from pipeline.errors import UserError
from pipeline.models import ModelSpec, load_model
from pipeline.progress import Silent
from pipeline.quant import walk
from pipeline.quant.allocate.costs import averaged_bits, stored_bits
from pipeline.quant.allocate.run import allocate_bits
from pipeline.quant.evaluate import sqnr_db
from pipeline.quant.fingerprint import fingerprint
from pipeline.quant.quantized import quantize_model
from pipeline.quant.recipe import Recipe, load_recipe, parse_recipe
from pipeline.quant.roles import resolve_roles
from pipeline.quant.simulate import simulate
from pipeline.quant.storage import load_quantized, save_quantized


def _recipe(weights: dict[str, object] | None = None, **mixed: object) -> Recipe:
    content = load_recipe("w8a8").model_dump() | {"mixed": {"images": 2} | mixed}
    content["weights"] |= weights or {}
    return parse_recipe(content, "test")


def _allocate(graph, images, recipe: Recipe) -> dict[str, int]:
    assert recipe.mixed is not None
    return allocate_bits(graph, recipe, recipe.mixed, images)


def _cost(graph, bits: dict[str, int], cost) -> int:
    return sum(cost([n], bits[n.name]) for n in graph.graph.nodes if n.name in bits)


@pytest.mark.parametrize("score", ["nuclear", "sqnr"])
@pytest.mark.parametrize("groups", ["blocks", "products"])
def test_the_average_is_kept(vit, images, score: str, groups: str) -> None:
    bits = _allocate(vit, images, _recipe(average=5.0, score=score, groups=groups))
    roles = resolve_roles(vit.graph)
    ends = roles.stem | roles.head if score == "nuclear" else set()
    products = [n for n in vit.graph.nodes if n.target in walk.GEMMS and n.name not in ends]
    assert set(bits) == {n.name for n in products}
    assert set(bits.values()) <= {3, 4, 5, 6, 7}
    assert _cost(vit, bits, averaged_bits) <= 5 * averaged_bits(products, 2) // 2


def test_an_average_of_eight_has_wide_activations(vit, images) -> None:
    bits = _allocate(vit, images, _recipe(groups="products"))
    assert max(bits.values()) == 16 and min(bits.values()) < 8


def test_the_size_counts_all_weights(vit, images) -> None:
    recipe = _recipe({"stem_bits": 8}, size_mb=0.0009)
    bits = _allocate(vit, images, recipe)
    stem = next(n for n in vit.graph.nodes if n.target is walk.CONV)
    assert stem.name not in bits
    found = _cost(vit, bits | {stem.name: 8}, lambda p, w: stored_bits(p, w, True))
    assert 0.00085 < found / 8e6 <= 0.0009


def test_more_room_never_lowers_all_bits(vit, images) -> None:
    averages = [
        _cost(vit, _allocate(vit, images, _recipe(average=a, choices=[2, 4, 8])), averaged_bits)
        for a in (3.0, 4.0, 6.0, 8.0)
    ]
    assert averages == sorted(averages) and averages[0] < averages[-1]


def test_a_size_out_of_reach_is_named_with_what_it_takes(vit, images) -> None:
    with pytest.raises(UserError, match=r"take at least 0\.\d+ MB.*mixed.size_mb = 0.0001;"):
        _allocate(vit, images, _recipe(size_mb=0.0001))


def test_quantized_models_have_the_bits_and_keep_them_in_storage(vit, images, tmp_path) -> None:
    recipe = _recipe(average=5.0, groups="products")
    quantized = quantize_model(vit, images, recipe, {"name": "toy"})
    bits = quantized.quantization.bits
    assert len(set(bits.values())) > 1
    for name, weight in quantized.quantization.weights.items():
        assert int(weight.codes.max()) <= 2 ** (bits[name] - 1) - 1
    save_quantized(quantized, tmp_path)
    loaded = load_quantized(tmp_path, vit)
    assert loaded.quantization.bits == bits
    assert fingerprint(loaded.graph) == fingerprint(quantized.graph)


def test_mixed_bits_are_better_than_uniform_ones_on_a_trained_network() -> None:
    data = os.environ.get("POCKETVIT_DATA")
    if data is None:
        pytest.skip("POCKETVIT_DATA is unset: no trained networks and photos")
    checkpoint = Path(data) / "deit_tiny_patch16_224.safetensors"
    loaded = load_model(ModelSpec("deit_tiny_patch16_224", checkpoint=checkpoint, crop_pct=0.875))
    photos = [
        to_pixels(Image.open(path).convert("RGB"), loaded.preprocessing)
        for path in list_photos(Path(data) / "imagenet_like")[::61][:16]
    ]
    graph = canonicalize(loaded)
    reference = simulate(graph, photos[8:])
    content = load_recipe("w8a8").model_dump() | {"calibration_images": 8, "equalize": {}}
    content["weights"] |= {"bits": 4}
    content["activations"] |= {"bits": 4}
    noise = []
    for mixed in (None, {"images": 2}):
        recipe = parse_recipe(content | {"mixed": mixed}, "test")
        quantized = quantize_model(graph, photos[:8], recipe, {})
        noise.append(sqnr_db(reference, simulate(quantized.graph, photos[8:])))
    assert noise[1] > noise[0]


class _Heard(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str | int | None] = []

    @contextmanager
    def step(self, title: str, total: int | None = None) -> Iterator[Silent]:
        self.told += [title, total]
        yield self

    def advance(self, done: int) -> None:
        self.told.append(done)


def test_scoring_is_told(vit, images) -> None:
    heard = _Heard()
    recipe = _recipe(average=5.0, choices=[4, 6]).model_copy(update={"calibration_images": 3})
    quantize_model(vit, images[:3], recipe, {}, reporter=heard)
    assert heard.told == ["score bits", 4, 1, 2, 3, 4]
