"""The same command in another process gives the same bytes, whatever Python's hashes are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.stages.quantize import SECONDS

from .conftest import MODEL, Inputs, write_photos

TRAINED = """
calibration_images = 6
[weights]
bits = 3
symmetric = false
[activations]
bits = 4
per_head = true
[equalize]
[mlp]
iterations = 2
batch = 4
[reconstruct]
iterations = 2
batch = 4
rounding_rate = 0.1
"""
RECIPES = ("pocket", "adalog:w4a4", "trained.toml")

_ALL = """
import sys
from pipeline.cli.main import app
recipes, folder, options = sys.argv[1].split(), sys.argv[2], sys.argv[3:]
for recipe in recipes:
    out = ["--out", f"{folder}/{recipe}", "--work", f"{folder}/work"]
    app(["quantize", *options, "--recipe", recipe, *out], standalone_mode=False)
out = ["--out", f"{folder}/artifact", "--work", f"{folder}/work"]
app(["build", f"{folder}/{recipes[0]}", *out], standalone_mode=False)
"""


def _start(folder: Path, hash_seed: int, inputs: Inputs) -> "subprocess.Popen[bytes]":
    root = Path(__file__).parents[3]
    options = [MODEL, *inputs.options("checkpoint"), "--calibration", "photos"]
    return subprocess.Popen(
        [sys.executable, "-c", _ALL, " ".join(RECIPES), str(folder), *options],
        cwd=folder.parent,
        env=os.environ
        | {"PYTHONPATH": str(root), "PYTHONHASHSEED": str(hash_seed), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
    )


@pytest.fixture(scope="module")
def twice(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, bytes]]:
    """All files that two processes wrote, each with a cache of its own, by their paths.

    Left out is how long the work took, which is in the cache alone.
    """
    folder = tmp_path_factory.mktemp("twice")
    write_photos(folder / "photos", seed=2, count=11)
    (folder / "trained.toml").write_text(TRAINED)
    outs = [folder / str(seed) for seed in (1, 2)]
    running = [_start(out, seed, inputs) for seed, out in enumerate(outs, start=1)]
    for process in running:
        _, said = process.communicate()
        assert process.returncode == 0, said.decode()
    return [
        {
            path.relative_to(out).as_posix(): path.read_bytes()
            for path in sorted(out.rglob("*"))
            if path.is_file() and path.name != SECONDS
        }
        for out in outs
    ]


@pytest.mark.parametrize("name", [*RECIPES, "artifact", "work"])
def test_every_file_is_the_same(name: str, twice: list[dict[str, bytes]]) -> None:
    first, second = ({p: c for p, c in files.items() if p.startswith(name)} for files in twice)
    assert first and first.keys() == second.keys()
    assert [path for path in first if first[path] != second[path]] == []
