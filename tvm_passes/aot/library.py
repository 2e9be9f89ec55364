"""From a lowered module to a shared library on disk."""

import os
import struct
import tempfile
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from tvm import IRModule

from tvm_passes.aot.driver import LibraryInfo, kernel_symbols, pack_params, render_driver
from tvm_passes.aot.functions import compile_functions, has_parallel_loop
from tvm_passes.aot.plan import plan_memory
from tvm_passes.aot.program import linearize
from tvm_passes.aot.targets import TargetSpec
from tvm_passes.aot.toolchain import compile_library
from tvm_passes.aot.weights import StoredWeights, weights_of


@dataclass(frozen=True)
class LibraryReport:
    """Sizes of a library, in bytes.

    Attributes:
        arena_bytes: working memory of one handle.
        live_bytes: largest set of tensors alive at once, the lower bound of ``arena_bytes``.
        parameter_bytes: constants, each rounded up to 64 bytes.
        code_bytes: machine code (section .text).
        file_bytes: the file.
        layers: names of the layers in order, as a profile counts them.
        weights: of the layers that have any.
    """

    arena_bytes: int
    live_bytes: int
    parameter_bytes: int
    code_bytes: int
    file_bytes: int
    layers: tuple[str, ...]
    weights: tuple[StoredWeights, ...] = ()


def build_library(mod: IRModule, target: TargetSpec, info: LibraryInfo, out: Path) -> LibraryReport:
    """Compile a lowered module for ``target``.

    Args:
        mod: see ``program.linearize``.
        target: what to build for.
        info: what the library says about itself.
        out: the shared library; written under another name and renamed, so that it is either
            whole or absent.

    Raises:
        LoweringError: the module holds something else, or the compiler is missing or fails.
    """
    program = linearize(mod)
    plan = plan_memory(program.buffers)
    params = pack_params(program)
    kernels = {symbol: mod[name] for name, symbol in kernel_symbols(program).items()}
    parallel = any(map(has_parallel_loop, kernels.values()))
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        work = Path(folder)
        driver = render_driver(program, plan, params, info, target, parallel)
        (work / "driver.c").write_text(driver)
        (work / "params.bin").write_bytes(params.blob)
        compile_functions(kernels, target.tvm_target(), work / "kernels.o")
        built = work / f"libpocketvit_{info.name}.so"  # becomes the SONAME
        compile_library(target, work, built)
        report = LibraryReport(
            arena_bytes=plan.arena_bytes,
            live_bytes=plan.live_bytes,
            parameter_bytes=len(params.blob),
            code_bytes=_section_bytes(built.read_bytes(), b".text"),
            file_bytes=built.stat().st_size,
            layers=tuple(layer.name for layer in program.layers),
            weights=weights_of(program, mod),
        )
        os.replace(built, out)
    return report


def public_header() -> str:
    """The text of ``pocketvit.h``."""
    return files("tvm_passes.aot").joinpath("runtime", "pocketvit.h").read_text()


def _section_bytes(elf: bytes, name: bytes) -> int:
    """Size of a section of a 64-bit little-endian ELF file (0 when it is absent)."""
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    entry_size, count, names = struct.unpack_from("<HHH", elf, 0x3A)
    sections = [struct.unpack_from("<IIQQQQ", elf, table + i * entry_size) for i in range(count)]
    text = sections[names][4]
    for section in sections:
        start = text + section[0]
        if elf[start : elf.index(b"\0", start)] == name:
            return int(section[5])
    return 0
