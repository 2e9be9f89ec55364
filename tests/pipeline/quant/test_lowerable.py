"""Recipes without integer form are refused by name of role and format."""

from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.quant.lowerable import check_lowerable
from pipeline.quant.recipe import Recipe, load_recipe, parse_recipe, recipe_names


def _recipe(**content: Any) -> Recipe:
    return parse_recipe({"name": "mine", **content}, "mine")


@pytest.mark.parametrize("bits", [3, 4, 6, 8])
@pytest.mark.parametrize("name", [n for n in recipe_names() if not load_recipe(n).paper])
def test_bundled_recipes_have_an_integer_form_at_all_bits(name: str, bits: int) -> None:
    check_lowerable(load_recipe(f"{name}:w{bits}a{bits}"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"softmax": {"format": "log2", "bits": 4}}, "softmax in 'log2, 4 bits and a zero'"),
        ({"softmax": {"format": "twin"}}, "softmax in 'twin, 8 bits, branches added'"),
        ({"post_gelu": {"format": "adalog"}}, "post_gelu in 'adalog, 8 bits and a zero'"),
        (
            {"activations": {"bits": 4, "per_head": True}},
            "k in '4 bits with a zero point for every head'",
        ),
    ],
)
def test_formats_as_published_are_refused(content: dict[str, Any], message: str) -> None:
    check_lowerable(_recipe(**content))
    with pytest.raises(UserError, match=f"mine can only be simulated: {message} has no integer"):
        check_lowerable(_recipe(paper=True, **content))


def test_what_papers_do_not_change_may_be_built() -> None:
    check_lowerable(_recipe(paper=True))
