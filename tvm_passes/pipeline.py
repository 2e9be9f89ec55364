"""The ordered pipeline from a quantized Relax module to kernels, as data."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tvm

import tvm_passes.kernels
import tvm_passes.ops  # noqa: F401  the registries fill on import
from tvm_passes.graph.crop import crop_unread
from tvm_passes.graph.data_movement import note_moves
from tvm_passes.graph.fuse import fuse_epilogue
from tvm_passes.graph.fuse_attention import fuse_attention
from tvm_passes.graph.layout import assign_layouts, collapse_views
from tvm_passes.graph.select import select_kernels
from tvm_passes.graph.verify import verify_integer
from tvm_passes.kernels.choices import Choices
from tvm_passes.kernels.isa import Isa
from tvm_passes.lowering.adalog import lower_quantize_log
from tvm_passes.lowering.attention import lower_matmul, lower_softmax
from tvm_passes.lowering.channels import lower_channel_factors
from tvm_passes.lowering.dynamic_relu import lower_dynamic_relu
from tvm_passes.lowering.elementwise import (
    lower_add,
    lower_concat,
    lower_multiply,
    lower_requantize,
)
from tvm_passes.lowering.io import return_codes, take_pixels
from tvm_passes.lowering.long_attention import lower_long_attention
from tvm_passes.lowering.normalization import lower_normalize
from tvm_passes.lowering.pointwise import lower_pointwise
from tvm_passes.lowering.pooling import lower_avg_pool2d, lower_mean, lower_resize
from tvm_passes.lowering.products import lower_conv2d, lower_linear
from tvm_passes.lowering.twin import lower_twin
from tvm_passes.lowering.views import sink_dequantize
from tvm_passes.rewrite import Rule, rewrite_main

Pass = Callable[[tvm.IRModule], tvm.IRModule]


@dataclass(frozen=True)
class Phase:
    """A named pass; the name is what is printed and dumped."""

    name: str
    run: Pass


def _rule(rule: Rule) -> Phase:
    return Phase(rule.__name__, lambda mod: rewrite_main(mod, rule))


LOWERING: tuple[Phase, ...] = (
    # the two ends of the library
    Phase("take_pixels", take_pixels),
    # views act on codes
    _rule(sink_dequantize),
    # two ranges become one, of which views act on codes too
    _rule(lower_twin),
    _rule(sink_dequantize),
    # one pass per operator family
    _rule(lower_conv2d),
    _rule(lower_linear),
    _rule(lower_softmax),  # before the products whose accumulators it bounds
    _rule(lower_long_attention),
    _rule(lower_matmul),
    _rule(lower_channel_factors),  # before what its factors are behind
    _rule(lower_normalize),
    _rule(lower_pointwise),
    _rule(lower_dynamic_relu),
    _rule(lower_quantize_log),
    _rule(lower_add),
    _rule(lower_multiply),
    _rule(lower_concat),
    _rule(lower_mean),
    _rule(lower_avg_pool2d),
    _rule(lower_resize),
    _rule(lower_requantize),
    Phase("return_codes", return_codes),
    # no float operator is left
    Phase("verify_integer", verify_integer),
    # what is moved so far, to be compared with what will be left
    Phase("note_moves", note_moves),
    # what nobody reads is not computed
    _rule(collapse_views),
    Phase("crop_unread", crop_unread),
    # attention in one operator, on tokens
    _rule(fuse_attention),
    # reshapes and permutations vanish
    Phase("assign_layouts", assign_layouts),
    # products end with what follows them
    _rule(fuse_epilogue),
)


def lower(
    mod: tvm.IRModule,
    dump: Path | None = None,
    progress: Callable[[str], None] = lambda name: None,
) -> tvm.IRModule:
    """Lower an imported QDQ module to the integer dialect.

    Args:
        mod: module with ``main(image: float32 [1, H, W, 3]) -> float32 [1, classes]``.
        dump: folder that receives every phase's result as runnable TVMScript.
        progress: called with the name of every phase before it runs.

    Returns:
        Module with ``main(image: uint8 [1, H, W, 3]) -> int32 [1, classes]``.

    Raises:
        LoweringError: an operator cannot be lowered; the message names it.
    """
    for index, phase in enumerate(LOWERING):
        progress(phase.name)
        mod = phase.run(mod)
        if dump is not None:
            write_script(mod, dump / f"{index:02d}_{phase.name}.py")
    return mod


def to_kernels(
    mod: tvm.IRModule, isa: Isa, dump: Path | None = None, choices: Choices | None = None
) -> tvm.IRModule:
    """Choose kernels for an integer module and prove them free of floating point.

    Args:
        mod: result of ``lower``.
        isa: instruction set of the target.
        dump: folder that receives the result as runnable TVMScript.
        choices: schedules that are to be used instead of the default ones.

    Raises:
        LoweringError: an operator has no kernel or no such schedule, or a kernel computes in
            floating point.
    """
    selected = verify_integer(select_kernels(mod, isa, choices))
    if dump is not None:
        write_script(selected, dump / f"{len(LOWERING):02d}_select_kernels_{isa.name}.py")
    return selected


def write_script(mod: tvm.IRModule, path: Path) -> None:
    """Write a module as a Python file that defines ``Module`` when run."""
    header = (
        "import tvm\nimport tvm_passes.ops  # registers R.pocketvit\n"
        "from tvm.script import ir as I\nfrom tvm.script import relax as R\n"
        "from tvm.script import tirx as T\n\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(header + mod.script(show_meta=True))
