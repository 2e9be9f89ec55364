"""Write the README's tables from the registries, or check that they are up to date.

Every table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

import tvm_passes.kernels  # noqa: F401  the registries fill on import
from pipeline.quant.recipe import load_recipe, recipe_names
from tvm_passes.aot import TARGETS
from tvm_passes.kernels.isa import ISAS
from tvm_passes.kernels.registry import KERNELS
from tvm_passes.ops.base import OPERATORS
from tvm_passes.pipeline import LOWERING

README = Path(__file__).parent.parent / "README.md"
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _first_line(text: str | None) -> str:
    return (text or "").strip().splitlines()[0].replace("``", "`").rstrip(".")


def operators() -> str:
    """Integer operators that have a kernel, with what their configuration says of them."""
    rows = [[f"`{name}`", _first_line(OPERATORS[name].config.__doc__)] for name in sorted(KERNELS)]
    return _table(["operator", "what it is"], rows)


def targets() -> str:
    """Targets of the library."""
    rows = [
        [
            f"`{spec.name}`",
            f"`{spec.triple}`",
            spec.isa,
            ISAS[spec.isa].matrix or ISAS[spec.isa].dot or "multiply-add",
        ]
        for spec in TARGETS.values()
    ]
    return _table(["target", "triple", "ISA level", "int8 product"], rows)


def recipes() -> str:
    """Recipes that come with the package."""
    rows = []
    for name in recipe_names():
        recipe = load_recipe(name)
        rows.append(
            [
                f"`{name}`",
                f"W{recipe.weights.bits}A{recipe.activations.bits}"
                + (" on average" if recipe.mixed else ""),
                str(recipe.residual_bits),
                str(recipe.preact_bits),
                recipe.softmax.format,
                recipe.post_gelu.format,
            ]
        )
    header = ["recipe", "GEMM operands", "residual", "pre-activation", "softmax", "post-GELU"]
    return _table(header, rows)


def passes() -> str:
    """The lowering pipeline in order."""
    return "".join(f"{index}. `{phase.name}`\n" for index, phase in enumerate(LOWERING, 1))


TABLES: dict[str, Callable[[], str]] = {
    "operators": operators,
    "targets": targets,
    "recipes": recipes,
    "passes": passes,
}


def main(
    check: Annotated[bool, typer.Option(help="Only check; exit 1 if the README is stale.")] = False,
) -> None:
    """Update the README's tables."""
    text = README.read_text()
    updated = MARKED.sub(lambda found: found[1] + TABLES[found[2]]() + found[3], text)
    if updated == text:
        return
    if check:
        typer.echo("README.md is stale: run python scripts/readme_tables.py", err=True)
        raise typer.Exit(1)
    README.write_text(updated)


if __name__ == "__main__":
    typer.run(main)
