"""Recipes: the bundled ones load, and every mistake is named."""

from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.quant.recipe import Recipe, at_bits, load_recipe, parse_recipe, recipe_names


def _file(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_bundled_recipes_load_under_their_names() -> None:
    names = recipe_names()
    assert {"w8a8", "w8a8-int8", "w8a8-adalog", "w4a8"} <= set(names)
    for name in names:
        recipe = load_recipe(name)
        assert recipe.name == name and recipe.description


def test_bundled_recipes_say_what_their_names_say() -> None:
    assert load_recipe("w4a8").weights.bits == 4
    assert load_recipe("w8a8").softmax.format == "int16"
    everything = load_recipe("w8a8-int8")
    assert (everything.preact_bits, everything.residual_bits, everything.branch_bits) == (8, 8, 8)
    adalog = load_recipe("w8a8-adalog")
    assert (adalog.softmax.format, adalog.post_gelu.format) == ("adalog", "adalog")


def test_recipe_from_a_path(tmp_path: Path) -> None:
    recipe = load_recipe(_file(tmp_path, "[weights]\nbits = 6\n"))
    assert (recipe.name, recipe.weights.bits) == ("mine", 6)


def test_plain_data_round_trip() -> None:
    recipe = load_recipe("w8a8-adalog")
    assert parse_recipe(recipe.model_dump(), "x") == recipe


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean w8a8"):
        load_recipe("w8a")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[weights]\nbit = 8\n", r"mine\.toml.*'weights\.bit'.*did you mean 'bits'.*observer"),
        ("colour = 1\n", r"unknown key 'colour'.*Allowed here: .*residual_bits"),
        ("[weights]\nbits = 9\n", r"weights\.bits = 9 is not allowed.*less than or equal to 8"),
        ("[weights]\nbits = 1\n", r"weights\.bits = 1 .*greater than or equal to 2"),
        ("residual_bits = 12\n", r"residual_bits = 12 .*8 or 16"),
        ("[softmax]\nformat = 'log3'\n", r"softmax\.format = 'log3' .*'int16', 'int8', 'uniform'"),
        ("[softmax]\nq = 200\n", r"softmax\.q = 200 .*137"),
        ("[activations.roles]\nlnout = 'mse'\n", r"roles\.lnout.*'lnout' .*'ln_out'"),
        ("[activations.roles]\nln_out = 'best'\n", r"roles\.ln_out = 'best' .*'percentile'"),
        ("[weights\n", r"mine\.toml is not valid TOML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe(_file(tmp_path, text))


def test_recipes_are_frozen() -> None:
    with pytest.raises(ValueError):
        Recipe(name="x").residual_bits = 8  # type: ignore[misc]


def test_bits_behind_the_name_replace_those_of_the_recipe() -> None:
    recipe = load_recipe("w8a8-adalog:w4a6")
    assert recipe.name == "w8a8-adalog:w4a6"
    assert (recipe.weights.bits, recipe.activations.bits) == (4, 6)


def test_bits_that_do_not_exist_are_refused() -> None:
    with pytest.raises(UserError, match=r"w8a8:w9a4: weights.bits = 9 is not allowed"):
        load_recipe("w8a8:w9a4")


def test_a_preset_gives_what_is_not_said() -> None:
    quick = parse_recipe({"name": "x", "reconstruct": {"preset": "quick", "batch": 3}}, "x")
    paper = parse_recipe({"name": "x", "reconstruct": {}}, "x")
    assert quick.reconstruct is not None and paper.reconstruct is not None
    assert (quick.reconstruct.batch, paper.reconstruct.batch) == (3, 32)
    assert quick.reconstruct.iterations < paper.reconstruct.iterations == 20_000
    assert parse_recipe(quick.model_dump(), "x") == quick
    with pytest.raises(UserError, match=r"reconstruct\.preset = 'slow' .*'paper' or 'quick'"):
        parse_recipe({"name": "x", "reconstruct": {"preset": "slow"}}, "x")


@pytest.mark.parametrize("name", ["pocket:w4a4:w8a8", "aphq:quick:paper", "aphq:quick:w3a3:quick"])
def test_a_name_that_asks_twice_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="twice; name each once"):
        load_recipe(name)


def test_a_preset_may_stand_before_the_bits() -> None:
    found = load_recipe("aphq:quick:w3a3").model_dump(exclude={"name"})
    assert found == load_recipe("aphq:w3a3:quick").model_dump(exclude={"name"})


def test_a_name_may_ask_for_a_preset() -> None:
    quick = load_recipe("aphq:w3a3:quick")
    assert quick.name == "aphq:w3a3:quick" and quick.weights.bits == 3
    assert quick.mlp is not None and quick.mlp.preset == "quick"
    assert (
        quick.reconstruct
        == parse_recipe({"name": "x", "reconstruct": {"preset": "quick"}}, "x").reconstruct
    )
    assert load_recipe("aphq:paper").mlp == load_recipe("aphq").mlp
    adalog = load_recipe("adalog-recon:quick").reconstruct
    assert adalog is not None and (adalog.inputs, adalog.importance) == ("float", "none")
    with pytest.raises(UserError, match="w8a8 trains nothing"):
        load_recipe("w8a8:quick")


def test_training_uses_more_photos_than_calibration() -> None:
    assert load_recipe("w8a8").most_images == load_recipe("w8a8").calibration_images
    assert load_recipe("aphq").most_images == 1024


def test_sections_for_few_bits_replace_keys_of_the_recipe_only_there() -> None:
    content = {
        "name": "mine",
        "activations": {"bits": 8, "per_head": True},
        "below_8_bits": {"softmax": {"format": "adalog"}},
    }
    recipe = parse_recipe(content, "mine")
    assert recipe.softmax.format == "int16"
    few = at_bits(recipe, 4, 4)
    assert few.softmax.format == "adalog"
    assert few.activations.per_head
