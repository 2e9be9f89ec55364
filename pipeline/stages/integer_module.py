"""The integer module as a file."""

from pathlib import Path

import tvm

import tvm_passes.ops  # noqa: F401  the operators must be known before a module is read

MODULE = "integer.json"


def write_module(module: tvm.IRModule, folder: Path) -> None:
    """Write an integer module into a folder, to the file `MODULE`."""
    (folder / MODULE).write_text(tvm.ir.save_json(module))


def read_module(path: Path) -> tvm.IRModule:
    """The integer module in a file."""
    return tvm.ir.load_json(path.read_text())
