"""A killed quantization goes on at its piece."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import torch

from pipeline.progress import Silent
from pipeline.quant import pieces
from pipeline.quant.fingerprint import fingerprint
from pipeline.quant.quantized import find_quantization, quantize_model
from pipeline.quant.recipe import parse_recipe
from pipeline.quant.work import Piece, WorkFolder, work_of

RECIPE = parse_recipe(
    {
        "name": "x",
        "weights": {"bits": 3, "symmetric": False},
        "activations": {"bits": 4, "per_head": True},
        "equalize": {},
        "mlp": {"iterations": 2, "batch": 4},
        "reconstruct": {"iterations": 2, "batch": 4, "rounding_rate": 0.1},
    },
    "x",
)


def test_a_piece_comes_back(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path / "new")
    assert work.remembered("a") is None
    work.remember("a", Piece({"t": torch.arange(3)}, {"x": [1.5, "y"]}))
    found = work.remembered("a")
    assert found is not None and found.data == {"x": [1.5, "y"]}
    assert torch.equal(found.tensors["t"], torch.arange(3))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.safetensors"]


def test_a_damaged_piece_is_none(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path)
    work.remember("a", Piece())
    path = tmp_path / "a.safetensors"
    path.write_bytes(path.read_bytes()[:-3] + b"!!!")
    assert work.remembered("a") is None


def test_a_quantization_survives_as_a_piece(vit, images, tmp_path: Path) -> None:
    _, found = find_quantization(vit, images, RECIPE.model_copy(update={"reconstruct": None}))
    work = WorkFolder(tmp_path)
    work.remember("x", pieces.of_quantization(found))
    piece = work.remembered("x")
    assert piece is not None
    again = pieces.as_quantization(piece)
    assert again.activations == found.activations
    assert again.equalizations == found.equalizations and again.rectified == found.rectified
    for name, weight in found.weights.items():
        assert torch.equal(again.weights[name].dequantized(), weight.dequantized())
    assert again.biases.keys() == found.biases.keys()


def test_other_photos_recipes_and_models_have_work_of_their_own(
    vit, images, builder, tmp_path: Path
) -> None:
    other = builder.head(builder.tokens(builder.stem()))
    seeded = RECIPE.model_copy(
        update={"reconstruct": RECIPE.reconstruct.model_copy(update={"seed": 1})}
    )
    works = {
        work_of(tmp_path, vit, RECIPE, images),
        work_of(tmp_path, vit, RECIPE, images[1:]),
        work_of(tmp_path, vit, seeded, images),
        work_of(tmp_path, other, RECIPE, images),
    }
    assert len(works) == 4
    assert work_of(tmp_path, vit, RECIPE, images) in works


_KILLED = """
import os, signal, sys
from pathlib import Path
from tests.pipeline.quant import test_work as t
t.kill_after_pieces(Path(sys.argv[1]), int(sys.argv[2]))
"""


def _vit():
    """The `vit` and `images` of the fixtures, in another process."""
    from tests.pipeline.quant import conftest

    return conftest.vit.__wrapped__(), conftest.images.__wrapped__()


def kill_after_pieces(folder: Path, count: int) -> None:
    """Quantize, and be killed as soon as so many pieces are stored."""
    torch.set_num_threads(1)
    vit, images = _vit()

    class Killer(Silent):
        @contextmanager
        def step(self, title, total=None):
            yield self

        def advance(self, done):
            if len(list(folder.rglob("*.safetensors"))) >= count:
                os.kill(os.getpid(), signal.SIGKILL)

    quantize_model(vit, images, RECIPE, {}, work=folder, reporter=Killer())


def test_a_killed_run_goes_on_at_its_unit(vit, images, tmp_path: Path) -> None:
    count = 3  # the MLP, the calibration, the first unit
    root = Path(__file__).parents[3]
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, str(tmp_path), str(count)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    stored = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert len(stored) == count
    resumed = quantize_model(vit, images, RECIPE, {}, work=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in stored} == stored
    whole = quantize_model(vit, images, RECIPE, {})
    assert fingerprint(resumed.graph) == fingerprint(whole.graph)
