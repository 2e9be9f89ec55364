"""Ahead of time: a lowered module becomes one shared library with a plain C interface.

``library.build_library`` is the way in; the order of the work is

    program   the Relax main function as tensors and layers in order
    plan      offsets of all tensors in one arena
    driver    the C source that calls the kernels, and the parameter blob
    toolchain compile and link, for Linux and Android
"""

from tvm_passes.aot.driver import LibraryInfo
from tvm_passes.aot.library import LibraryReport, build_library
from tvm_passes.aot.targets import TARGETS, TargetSpec, resolve_target

__all__ = [
    "TARGETS",
    "LibraryInfo",
    "LibraryReport",
    "TargetSpec",
    "build_library",
    "resolve_target",
]
