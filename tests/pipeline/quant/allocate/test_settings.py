"""The `mixed` section of recipes."""

import pytest

from pipeline.errors import UserError
from pipeline.quant.allocate.settings import Mixed
from pipeline.quant.recipe import load_recipe, parse_recipe


@pytest.mark.parametrize(
    ("bits", "widths"),
    [(3, (2, 3, 4, 5)), (4, (2, 3, 4, 5, 6)), (6, (4, 5, 6, 7, 8)), (8, (6, 7, 8, 16))],
)
def test_choices_lie_around_the_average(bits: int, widths: tuple[int, ...]) -> None:
    assert Mixed().widths(bits) == widths
    assert Mixed(average=bits).widths(8) == widths


def test_a_size_may_use_all_widths_that_change_it() -> None:
    assert Mixed(size_mb=1.0).widths(8) == (2, 3, 4, 5, 6, 7, 8)


def test_bits_behind_the_name_are_the_average() -> None:
    recipe = load_recipe("liu2021-mp:w4a4")
    assert recipe.mixed is not None and recipe.mixed.average_of(recipe.weights.bits) == 4
    given = parse_recipe({"name": "x", "mixed": {"average": 6.5}}, "x")
    assert given.mixed is not None and given.mixed.average_of(8) == 6.5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"average": 4.0, "size_mb": 2.0}, "x: average and size_mb exclude each other"),
        ({"average": 4.0, "choices": [6, 8]}, "mixed.choices has nothing below 6 bits"),
        ({"choices": [4, 9]}, r"mixed.choices.1 = 9 is not allowed.*16"),
    ],
)
def test_mistakes_are_named(content: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_recipe({"name": "x", "mixed": content}, "x")


def test_weights_and_activations_have_the_same_average() -> None:
    with pytest.raises(UserError, match="w4a8: mixed precision gives weights and activations"):
        load_recipe("liu2021-mp:w4a8")
