"""What there is, and help for everything."""

import json

import pytest

from pipeline.canonical import PASSES
from pipeline.quant.recipe import recipe_names
from tvm_passes.pipeline import LOWERING

VERBS = (
    ["deploy"],
    ["quantize"],
    ["build"],
    ["measure"],
    ["compare"],
    ["sensitivity"],
    ["split"],
    ["device"],
    ["device", "emulate"],
    ["doctor"],
    ["recipes"],
    ["models"],
    ["passes"],
)


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_has_help(verb, run):
    result = run(*verb, "--help")
    assert result.exit_code == 0
    assert f"Usage: pocketvit {' '.join(verb)}" in result.stdout


def test_the_help_lists_all_verbs(run):
    text = run("--help").stdout
    assert all(f" {verb[0]} " in text for verb in VERBS)


def test_recipes_are_listed(run):
    lines = run("recipes").stdout.splitlines()
    assert [line.split()[0] for line in lines] == recipe_names()


def test_passes_are_listed_in_order(run):
    phases = json.loads(run("passes", "--json").stdout)
    assert phases["canonicalize"] == [name for name, _ in PASSES]
    assert phases["integer"] == [*(phase.name for phase in LOWERING), "select_kernels"]
    assert "  00 take_pixels" in run("passes").stdout.splitlines()


def test_models_are_listed_with_an_example(run):
    assert "mobilevit_xxs" in run("models").stdout
    assert all(
        {"name", "example"} <= set(line) for line in json.loads(run("models", "--json").stdout)
    )
