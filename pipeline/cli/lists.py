"""pocketvit recipes, models and passes: what there is."""

import json as json_module
from dataclasses import asdict

from pipeline.cli import options
from pipeline.cli.columns import in_columns


def recipes(json: options.Json = False) -> None:
    """List the bundled quantization recipes."""
    from pipeline.quant.recipe import load_recipe, recipe_names

    found = [load_recipe(name) for name in recipe_names()]
    if json:
        print(json_module.dumps([recipe.model_dump() for recipe in found], indent=2))
    else:
        print(in_columns([(recipe.name, recipe.description) for recipe in found]))


def models(json: options.Json = False) -> None:
    """List the model families that are known to work, with an example of each.

    Other models of timm may work too: what cannot be compiled is refused with the operator's name.
    """
    from pipeline.models.proven import PROVEN

    if json:
        print(json_module.dumps([asdict(family) for family in PROVEN], indent=2))
    else:
        print(in_columns([(family.name, family.example, family.note) for family in PROVEN]))


def passes(json: options.Json = False) -> None:
    """List the passes from a timm model to kernels, in their order.

    deploy and build write the module after each of the integer passes with --dump-ir.
    """
    from pipeline.canonical import PASSES
    from tvm_passes.pipeline import LOWERING

    phases = {
        "canonicalize": [name for name, _ in PASSES],
        "integer": [phase.name for phase in LOWERING] + ["select_kernels"],
    }
    if json:
        print(json_module.dumps(phases, indent=2))
        return
    for phase, names in phases.items():
        print(phase)
        for index, name in enumerate(names):
            print(f"  {index:02d} {name}")
