"""Ahead of time: a lowered module becomes one shared library with a plain C interface.

``library.build_library`` is the way in; the order of the work is

    program   the Relax main function as tensors and layers in order
    plan      offsets of all tensors in one arena
    driver    the C source that calls the kernels, and the parameter blob
    toolchain compile and link, for Linux and Android
    weights   what the weights of every layer take
"""

from tvm_passes.aot.driver import LibraryInfo
from tvm_passes.aot.library import LibraryReport, build_library
from tvm_passes.aot.targets import TARGETS, TargetSpec, resolve_target
from tvm_passes.aot.weights import StoredWeights, bytes_by_bits, stored_weights

__all__ = [
    "TARGETS",
    "LibraryInfo",
    "LibraryReport",
    "StoredWeights",
    "TargetSpec",
    "build_library",
    "bytes_by_bits",
    "resolve_target",
    "stored_weights",
]
