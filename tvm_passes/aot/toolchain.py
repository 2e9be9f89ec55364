"""Compiles and links a library with the C compiler of its target."""

import os
import subprocess
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path

from tvm_passes.aot.targets import TargetSpec
from tvm_passes.errors import LoweringError

SOURCES = ("pocketvit.c", "tvm_standins.c", "tvm_entry.c", "params.S")
ANDROID_API = 24

# All that a library may take from Android's C library; the linker refuses anything else.
BIONIC = {
    "libc.so": (
        "clock_gettime",
        "free",
        "getauxval",
        "memcpy",
        "memmove",
        "memset",
        "posix_memalign",
        "strlen",
    ),
    "libm.so": ("exp", "expf", "log", "logf", "pow", "powf", "sqrt", "sqrtf", "erff", "tanhf"),
}

_COMPILE = (
    "-std=c11",
    "-D_POSIX_C_SOURCE=200809L",
    "-O2",
    "-fPIC",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
)
_COMPILE_ARM = ("-mno-outline-atomics", "-fno-stack-protector")  # would call compiler libraries
_LINK = (
    "-shared",
    "-s",
    "-Wl,-Bsymbolic",  # two libraries in one process must not meet
    "-Wl,-z,defs,-z,now,-z,relro,-z,noexecstack,-z,text",
    "-Wl,--hash-style=gnu,--build-id=sha1,--as-needed",
)
# Pages of 16 KiB: LOAD segments and the end of the read-only-after-relocation part.
_LINK_ANDROID = ("-Wl,-z,max-page-size=16384,-z,common-page-size=16384",)


def compile_library(target: TargetSpec, work: Path, out: Path) -> None:
    """Compile and link the runtime sources with a generated driver.

    Args:
        target: what to build for.
        work: folder with driver.c, params.bin and kernels.o (the compiled PrimFuncs).
        out: shared library to write; its file name is also its SONAME.

    Raises:
        LoweringError: the compiler is missing or fails; the message holds its first lines.
    """
    with as_file(files("tvm_passes.aot").joinpath("runtime")) as runtime:
        sources = ["driver.c", *(f"{runtime}/{source}" for source in SOURCES), "kernels.o"]
        flags = [*_COMPILE, *(_COMPILE_ARM if target.is_arm else ()), f"-I{runtime}"]
        link = [*_LINK, f"-Wl,-soname,{out.name}", f"-Wl,--version-script={runtime}/exports.map"]
        compiler, libraries = target.compiler, ["-lm", "-lc"]
        if target.system == "android":
            link += _LINK_ANDROID
            ndk = _ndk_compiler()
            if ndk is not None:
                compiler = str(ndk)
            else:
                own_headers = _run([compiler, "-print-file-name=include"], work).strip()
                flags += ["-ffreestanding", "-nostdinc", "-nostdlib"]
                flags += ["-isystem", own_headers, "-isystem", f"{runtime}/bionic"]
                libraries = _bionic_stubs(compiler, work)
        _run([compiler, *flags, *link, "-o", str(out), *sources, *libraries], work)


def _bionic_stubs(compiler: str, work: Path) -> list[str]:
    """Empty libraries with the names and symbols of Android's, to link against.

    Their symbols carry no version, so that the result binds to whatever the device has.
    """
    for name, symbols in BIONIC.items():
        source = "".join(f".globl {s}\n.type {s}, %function\n{s}: ret\n" for s in symbols)
        (work / f"{name}.s").write_text(source)
        soname = f"-Wl,-soname,{name}"
        _run([compiler, "-shared", "-nostdlib", soname, "-o", name, f"{name}.s"], work)
    return list(BIONIC)


def _ndk_compiler() -> Path | None:
    """Clang of the NDK that $ANDROID_NDK_HOME names, or None when it is not set.

    Raises:
        LoweringError: the variable is set but the compiler is not there.
    """
    root = os.environ.get("ANDROID_NDK_HOME")
    if not root:
        return None
    pattern = f"toolchains/llvm/prebuilt/*/bin/aarch64-linux-android{ANDROID_API}-clang"
    found = sorted(Path(root).glob(pattern))
    if not found:
        raise LoweringError(
            f"ANDROID_NDK_HOME is {root}, but {pattern} is not there; correct or unset it."
        )
    return found[0]


def _run(command: Sequence[str], work: Path) -> str:
    """Output of a compiler command.

    Raises:
        LoweringError: it cannot be started, or it fails.
    """
    try:
        done = subprocess.run(command, cwd=work, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise LoweringError(
            f"The C compiler {command[0]} is not installed; install it to build this target."
        ) from error
    if done.returncode != 0:
        details = "\n".join(done.stderr.splitlines()[:20])
        raise LoweringError(f"{command[0]} failed with status {done.returncode}:\n{details}")
    return done.stdout
