"""PrimFuncs compiled to C functions of plain pointers.

TVM would wrap every kernel in a function that unpacks and checks DLTensors, at about one kilobyte
of code each. The driver passes what it laid out itself, so kernels are compiled without:
``int32_t symbol(const void *input, ..., void *output)``.
"""

from collections.abc import Mapping
from pathlib import Path

from tvm import IRModule, tirx
from tvm.ir import CallingConv, Expr, PointerType, PrimType
from tvm.target import Target
from tvm.tirx.build import codegen_build
from tvm_ffi import structural_walk
from tvm_ffi.structural import WalkResult

from tvm_passes.aot.plan import ALIGNMENT


def compile_functions(functions: Mapping[str, tirx.PrimFunc], target: Target, out: Path) -> None:
    """Write an object file.

    Args:
        functions: PrimFuncs by their C symbols; parameters are buffers of static shape.
        target: what to compile for.
        out: the object file. Its functions return 0, or -1 when memory runs out, and take
            pointers that are multiples of 64 bytes.
    """
    mod = IRModule({symbol: _plain(func, symbol) for symbol, func in functions.items()})
    # the steps of tvm.tirx.build; the device can be named only in between
    mod = tirx.transform.BindTarget(target.with_host(target))(mod)
    lower, finish, _ = tirx.get_default_tir_pipeline(target)
    mod = IRModule({name: _on_cpu(func) for name, func in lower(mod).functions_items()})
    codegen_build(finish()(mod), target).write_to_file(str(out), "o")


def has_parallel_loop(func: tirx.PrimFunc) -> bool:
    """Whether a PrimFunc can use more than one thread."""
    kinds: list[int] = []
    statements = (tirx.For, lambda loop: kinds.append(int(loop.kind)))
    expressions = (Expr, lambda _: WalkResult.SKIP)  # shared parts would be visited many times
    structural_walk(func.body, [statements, expressions], order="pre")
    return tirx.ForKind.PARALLEL in kinds


def _plain(func: tirx.PrimFunc, symbol: str) -> tirx.PrimFunc:
    """The same function with a pointer in place of each buffer."""
    pointers = [
        tirx.Var(str(buffer.name), PointerType(PrimType(str(buffer.dtype)), "global"))
        for buffer in func.params
    ]
    views = [
        tirx.DeclBuffer(buffer, data=pointer)
        for buffer, pointer in zip(func.params, pointers, strict=True)
    ]
    body = tirx.SeqStmt([*views, func.body])
    for pointer in pointers:
        body = tirx.AttrStmt(pointer, "storage_alignment", tirx.const(ALIGNMENT, "int32"), body)
    plain = tirx.PrimFunc(pointers, body, PrimType("int32"), func.attrs)
    # a function with a calling convention is not wrapped
    convention = int(CallingConv.C_PACKED_FUNC)
    return plain.with_attr("global_symbol", symbol).with_attr("calling_conv", convention)


def _on_cpu(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Name the device that workspaces are allocated on."""
    return func.with_body(tirx.AttrStmt("default", "device_id", tirx.const(0, "int32"), func.body))
