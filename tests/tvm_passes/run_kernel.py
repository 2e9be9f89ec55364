"""Compile and run generated kernels on the host, or for ARM under an emulator."""

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from numpy.typing import NDArray
from tvm import relax

from tvm_passes.interpret import VIEWS
from tvm_passes.kernels.isa import ISAS, Isa
from tvm_passes.kernels.registry import KERNELS, Kernel
from tvm_passes.lowering.quantized import array_of
from tvm_passes.numerics import INT_RANGE
from tvm_passes.ops.base import OPERATORS, TensorSpec, config_of, operator_of
from tvm_passes.rewrite import MAIN, main_bindings

Array = NDArray[Any]

HOST_ISAS = ("avx512vnni", "avx2", "portable")
ARM_ISAS = ("neon-dotprod", "neon")
EVERY_ISA = (*HOST_ISAS, *ARM_ISAS, "neon-i8mm")
EMULATED_CPU = {"neon": "cortex-a53", "neon-dotprod": "cortex-a76", "neon-i8mm": "max,sve=off"}
COMPILER = "aarch64-linux-gnu-gcc"
EMULATOR = "qemu-aarch64"
ALIGN = 64
GUARD = 0xA5
CPU_FLAGS = {"avx512vnni": ("avx512_vnni", "avx512vl"), "avx2": ("avx2",)}


Call = tuple[str, Any, Sequence[Array]]  # operator, configuration, arguments


@dataclass(frozen=True)
class Case:
    """One call: a kernel, its inputs (constants not yet packed) and its output's spec."""

    kernel: Kernel
    arrays: Sequence[Array]
    out: TensorSpec


def run_kernel(kernel: Kernel, arrays: Sequence[Array], out: TensorSpec, isa: str | Isa) -> Array:
    """The output of one call of ``kernel``."""
    return run_kernels([Case(kernel, arrays, out)], isa)[0]


def run_kernels(cases: Sequence[Case], isa: str | Isa) -> list[Array]:
    """The outputs of all ``cases``, compiled together and run in one process.

    Skips the test where the host cannot execute ``isa`` and no emulator is there.
    """
    level = ISAS[isa] if isinstance(isa, str) else isa
    inputs = [_packed(case) for case in cases]
    if level.arch == "aarch64":
        return _run_arm(cases, inputs, level)
    flags = _cpu_flags()
    if missing := [flag for flag in CPU_FLAGS.get(level.name, ()) if flag not in flags]:
        pytest.skip(f"this machine has no {missing[0]}")
    library = tvm.compile(_module(cases), target=_target(level, "x86_64-linux-gnu"))
    results = []
    for case, arrays in zip(cases, inputs, strict=True):
        # twice the room, so that a store past the end shows up as a changed guard byte
        out = tvm.runtime.tensor(_guarded(case.out))
        view = out._create_view(case.out.shape, case.out.dtype)
        library[_name(cases, case)](*map(tvm.runtime.tensor, arrays), view)
        results.append(_checked(out.numpy(), case.out))
    return results


def codes(dtype: str, *shape: int) -> Array:
    """Random codes of the whole range of ``dtype``, its extremes first and last."""
    low, high = INT_RANGE[dtype]
    drawn = np.random.default_rng(len(shape)).integers(low, high + 1, shape)
    drawn.reshape(-1)[[0, -1]] = low, high
    return drawn.astype(dtype)


def check_all(calls: Sequence[Call], isa: str) -> None:
    """Assert that the kernels of all calls equal their operators' references bit for bit.

    Everything is compiled together and runs in one process; calls with equal configurations,
    shapes and dtypes share one kernel.
    """
    generated: dict[object, tuple[Kernel, TensorSpec]] = {}
    cases = []
    for name, config, arrays in calls:
        given = [TensorSpec(array.shape, str(array.dtype)) for array in arrays]
        specs = KERNELS[name].stored(config, given, dict(enumerate(arrays)), ISAS[isa])
        key = (name, config, specs)
        if key not in generated:
            out = OPERATORS[name].infer(config, specs)
            generated[key] = KERNELS[name](config, specs, ISAS[isa]), out
        cases.append(Case(generated[key][0], arrays, generated[key][1]))
    for (name, config, arrays), got in zip(calls, run_kernels(cases, isa), strict=True):
        expected = OPERATORS[name].reference(config, *arrays)
        assert (expected.dtype, expected.shape) == (got.dtype, got.shape), (name, config)
        np.testing.assert_array_equal(got, expected, err_msg=f"{name} {config} on {isa}")


def calls_of(mod: tvm.IRModule, *inputs: Array) -> list[Call]:
    """Calls of every integer operator of ``main``, on the values that the references compute."""
    values = dict(zip(mod[MAIN].params, inputs, strict=True))
    calls: list[Call] = []

    def value(expr: relax.Expr) -> Array:
        constant = array_of(expr)
        return values[expr] if constant is None else constant

    for binding in main_bindings(mod):
        expr, operator = binding.value, operator_of(binding.value)
        if operator is not None:
            calls.append((operator.name, config_of(expr), list(map(value, expr.args[:-1]))))
            values[binding.var] = operator.reference(calls[-1][1], *calls[-1][2])
        elif isinstance(expr, relax.Call):
            view = VIEWS[str(expr.op.name)](expr, value(expr.args[0]))
            values[binding.var] = np.ascontiguousarray(view)
        else:
            values[binding.var] = value(expr)
    return calls


def _packed(case: Case) -> list[Array]:
    arrays = dict(enumerate(case.arrays))
    if case.kernel.pack is not None:
        arrays |= case.kernel.pack(arrays)
    return [np.ascontiguousarray(arrays[index]) for index in range(len(arrays))]


def _name(cases: Sequence[Case], case: Case) -> str:
    return f"k{next(i for i, other in enumerate(cases) if other.kernel is case.kernel)}"


def _module(cases: Sequence[Case]) -> tvm.IRModule:
    functions = {_name(cases, case): case.kernel.func for case in cases}
    return tvm.IRModule(
        {name: func.with_attr("global_symbol", name) for name, func in functions.items()}
    )


def _target(isa: Isa, triple: str) -> tvm.target.Target:
    options: dict[str, Any] = {"kind": "llvm", "mtriple": triple}
    if isa.mattr:
        options["mattr"] = list(isa.mattr)
    if isa.mcpu:
        options["mcpu"] = isa.mcpu
    return tvm.target.Target(options)


@cache
def _cpu_flags() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").split())


def _nbytes(spec: TensorSpec) -> int:
    return int(np.prod(spec.shape, dtype=np.int64)) * np.dtype(spec.dtype).itemsize


def _guarded(spec: TensorSpec) -> NDArray[np.uint8]:
    return np.full(_nbytes(spec) + 2 * ALIGN, GUARD, np.uint8)


def _checked(raw: NDArray[np.uint8], spec: TensorSpec) -> Array:
    size = _nbytes(spec)
    assert np.all(raw[size:] == GUARD), "the kernel wrote past the end of its output"
    result: Array = raw[:size].view(spec.dtype).reshape(spec.shape)
    return result


def _run_arm(cases: Sequence[Case], inputs: Sequence[Sequence[Array]], isa: Isa) -> list[Array]:
    if missing := [tool for tool in (COMPILER, EMULATOR) if shutil.which(tool) is None]:
        pytest.skip(f"{missing[0]} is not installed")
    memory = bytearray()
    offsets: list[int] = []
    tensors, calls = [], []
    for case, arrays in zip(cases, inputs, strict=True):
        calls.append(f"{{__tvm_ffi_{_name(cases, case)}, {len(offsets)}, {len(arrays) + 1}}}")
        contents = [(array.tobytes(), array.shape, array.dtype) for array in arrays]
        contents.append((_guarded(case.out).tobytes(), case.out.shape, np.dtype(case.out.dtype)))
        for raw, shape, dtype in contents:
            offsets.append(len(memory))
            memory += raw + bytes(-len(raw) % ALIGN)
            code = {"i": 0, "u": 1}[dtype.kind]
            extents = ",".join(map(str, shape)) or "0"
            tensors.append(
                f"{{0, {{1, 0}}, {len(shape)}, {{{code}, {dtype.itemsize * 8}, 1}}, "
                f"(int64_t[]){{{extents}}}, 0, 0}}"
            )
    names = sorted({_name(cases, case) for case in cases})
    header = [f"int __tvm_ffi_{name}(void *, const Any *, int32_t, Any *);" for name in names]
    header += [f"enum {{ TENSORS = {len(tensors)}, BYTES = {len(memory)} }};"]
    header += [f"static Tensor tensors[] = {{{', '.join(tensors)}}};"]
    header += [f"static const uint64_t offsets[] = {{{', '.join(map(str, offsets))}}};"]
    header += [f"static const Call calls[] = {{{', '.join(calls)}}};"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        library = tvm.compile(_module(cases), target=_target(isa, "aarch64-linux-gnu"))
        library.mod.write_to_file(str(folder / "kernels.o"), "o")
        (folder / "cases.h").write_text("\n".join(header))
        (folder / "in.bin").write_bytes(memory)
        source = str(Path(__file__).with_name("arm_main.c"))
        build = [COMPILER, "-O1", "-w", "-I.", source, "kernels.o", "-o", "main", "-lm"]
        _execute(build, folder)
        cpu = EMULATED_CPU[isa.name]
        _execute([EMULATOR, "-cpu", cpu, "-L", "/usr/aarch64-linux-gnu", "./main"], folder)
        result = np.frombuffer((folder / "out.bin").read_bytes(), np.uint8)
    outputs, position = [], 0
    for case, arrays in zip(cases, inputs, strict=True):
        position += len(arrays)
        start = offsets[position]
        outputs.append(_checked(result[start : start + len(_guarded(case.out))], case.out))
        position += 1
    return outputs


def _execute(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command[0]} failed: {done.stderr[-2000:]}"
