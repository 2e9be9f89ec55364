"""Which recipes can become integers: told before any work is done, not after it."""

from pipeline.errors import UserError
from pipeline.quant.formats import ATTENTION_OPERANDS, format_of, operand
from pipeline.quant.quantizers.uniform import Uniform
from pipeline.quant.recipe import Recipe
from pipeline.quant.roles import Role

_WITH_FAMILIES = (Role.SOFTMAX, Role.POST_GELU)


def check_lowerable(recipe: Recipe) -> None:
    """Refuse a recipe that can only be simulated.

    Raises:
        UserError: a role's format has no integer form.
    """
    if (found := _not_lowerable(recipe)) is not None:
        role, form = found
        raise UserError(
            f"Recipe {recipe.name} can only be simulated: {role} in '{form}' has no integer form; "
            "simulate it (quantize --simulate-only, compare --level simulated) or take paper = "
            "true out of the recipe."
        )


def _not_lowerable(recipe: Recipe) -> tuple[Role, str] | None:
    """A role and its format without integer form; None if there is none."""
    bits = recipe.activations.bits
    for role in _WITH_FAMILIES:
        form = format_of(role, recipe, bits)
        if form is not None and not isinstance(form, Uniform) and form.published:
            return role, str(form)
    if recipe.activations.per_head:
        for role in sorted(ATTENTION_OPERANDS - {Role.OPERAND}):
            if not operand(role, recipe, bits).symmetric:
                return role, f"{bits} bits with a zero point for every head"
    return None
