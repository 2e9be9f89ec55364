"""A stage is made again when code changes that its result can depend on, and only then."""

import shutil
from pathlib import Path, PurePosixPath

import pytest

from pipeline.files.hashing import sha256_tree
from pipeline.stages import workspace
from pipeline.stages.sources import ROOT, SOURCES
from pipeline.stages.workspace import Workspace

from .imports import imported_files

MODULES = {
    "validation": "photos",
    "quantize": "quantize",
    "lower": "lower",
    "build": "build",
    "float": "float_logits",
    "simulated": "simulated_logits",
    "integer": "integer_logits",
}
# an edited file, and the stages that it concerns
EDITS = {
    "tvm_passes/kernels/gemm.py": {"lower", "build"},
    "tvm_passes/aot/runtime/pool.c": {"lower", "build"},
    "pipeline/quant/observers.py": {"quantize", "lower", "simulated"},
    "pipeline/canonical/norms.py": {"quantize", "lower", "simulated", "float"},
    "pipeline/data/preprocess.py": set(SOURCES) - {"build"},
    "pipeline/frontend/convert.py": {"lower"},
    "pipeline/device/host.py": {"integer"},
    "pipeline/cli/table.py": set(),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project's sources."""
    root = tmp_path_factory.mktemp("sources")
    for package in ("pipeline", "tvm_passes"):
        leave = shutil.ignore_patterns("__pycache__", "assets")
        shutil.copytree(ROOT / package, root / package, ignore=leave)
    return root


def versions(root: Path) -> dict[str, str]:
    """The code version of every stage."""
    return {stage: sha256_tree(root, names) for stage, names in SOURCES.items()}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_concerns_the_stages_that_use_the_file(name: str, copy: Path) -> None:
    before = versions(copy)
    with (copy / name).open("a") as file:
        file.write("\n")
    after = versions(copy)
    assert {stage for stage in SOURCES if before[stage] != after[stage]} == EDITS[name]


@pytest.mark.parametrize("stage", SOURCES)
def test_sources_cover_all_that_the_stage_imports(stage: str) -> None:
    declared = {PurePosixPath(name) for name in SOURCES[stage]}
    missed = {
        name
        for name in imported_files(ROOT, f"pipeline.stages.{MODULES[stage]}")
        if declared.isdisjoint([PurePosixPath(name), *PurePosixPath(name).parents])
    }
    assert not missed


@pytest.mark.parametrize("stage", SOURCES)
def test_sources_name_nothing_that_the_stage_does_not_import(stage: str) -> None:
    imported = imported_files(ROOT, f"pipeline.stages.{MODULES[stage]}")
    used = {str(path) for name in imported for path in (name, *PurePosixPath(name).parents)}
    assert set(SOURCES[stage]) <= used


def test_a_stage_whose_code_changed_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made() -> bool:
        return Workspace(tmp_path).cached("quantize", {}, lambda folder: None)[1]

    assert (made(), made()) == (True, False)
    changed = {"quantize": "tomorrow"}
    monkeypatch.setattr(workspace, "code_version", changed.__getitem__)
    assert (made(), made()) == (True, False)


def test_imports_are_found_in_functions_packages_and_imports_of_imports(tmp_path: Path) -> None:
    files = {
        "p/__init__.py": "from q.b import value",
        "p/a.py": "def later():\n    import p.late\n",
        "p/late.py": "import json",
        "p/unused.py": "",
        "q/b.py": "from q import c",
        "q/c.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert imported_files(tmp_path, "p.a") == set(files) - {"p/unused.py"}
