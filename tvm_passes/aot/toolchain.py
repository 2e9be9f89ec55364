"""Compiles and links a library with the C compiler of its target."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path

from tvm_passes.aot.targets import TargetSpec
from tvm_passes.errors import LoweringError

SOURCES = ("pocketvit.c", "pool.c", "cores.c", "tvm_standins.c", "tvm_entry.c", "params.S")
ANDROID_API = 24

# All that a library may take from its system; the linker refuses anything else.
_C_SYMBOLS = (
    "clock_gettime",
    "close",
    "free",
    "getauxval",
    "getenv",
    "memcpy",
    "memmove",
    "memset",
    "open",
    "posix_memalign",
    "read",
    "sched_getaffinity",
    "sched_setaffinity",
    "sched_yield",
    "strlen",
)
_THREAD_SYMBOLS = (
    "pthread_cond_broadcast",
    "pthread_cond_destroy",
    "pthread_cond_init",
    "pthread_cond_wait",
    "pthread_create",
    "pthread_getspecific",
    "pthread_join",
    "pthread_key_create",
    "pthread_key_delete",
    "pthread_mutex_destroy",
    "pthread_mutex_init",
    "pthread_mutex_lock",
    "pthread_mutex_unlock",
    "pthread_setspecific",
)
SYSTEM_LIBRARIES: dict[str, dict[str, tuple[str, ...]]] = {
    "linux": {"libc.so.6": _C_SYMBOLS, "libpthread.so.0": _THREAD_SYMBOLS},
    "android": {"libc.so": _C_SYMBOLS + _THREAD_SYMBOLS},
}

_COMPILE = (
    "-std=c11",
    "-D_GNU_SOURCE",
    "-O2",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-stack-protector",  # this and the next would call more of the C library
    "-U_FORTIFY_SOURCE",
    "-Wall",
    "-Wextra",
)
_COMPILE_ARM = ("-mno-outline-atomics",)  # would call a compiler library
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
        compiler, libraries = target.compiler, ["-lc"]
        ndk = _ndk_compiler() if target.system == "android" else None
        if target.system == "android":
            link += _LINK_ANDROID
        if ndk is not None:
            compiler = str(ndk)
        else:
            flags += ["-nostdlib"]
            libraries = [*_stubs(compiler, SYSTEM_LIBRARIES[target.system], work), "-lgcc"]
            if target.system == "android":
                own_headers = _run([compiler, "-print-file-name=include"], work).strip()
                flags += ["-ffreestanding", "-nostdinc"]
                flags += ["-isystem", own_headers, "-isystem", f"{runtime}/bionic"]
        _run([compiler, *flags, *link, "-o", str(out), *sources, *libraries], work)


def _stubs(compiler: str, libraries: Mapping[str, Sequence[str]], work: Path) -> list[str]:
    """Empty libraries with the names and symbols of the system's, to link against.

    Their symbols carry no version, so that the result binds to whatever the device has: any
    Android, and a C library older than this machine's.
    """
    for name, symbols in libraries.items():
        source = "".join(f".globl {s}\n.type {s}, %function\n{s}: ret\n" for s in symbols)
        (work / f"{name}.s").write_text(source)
        soname = f"-Wl,-soname,{name}"
        _run([compiler, "-shared", "-nostdlib", soname, "-o", name, f"{name}.s"], work)
    return list(libraries)


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
