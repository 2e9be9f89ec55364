"""The integer module of a quantized model; it is the same for all targets."""

from collections.abc import Callable
from pathlib import Path

import tvm

from pipeline.frontend.importer import import_quantized
from pipeline.progress import Step
from pipeline.quant.storage import DESCRIPTION
from pipeline.stages.float_model import FloatModel
from pipeline.stages.integer_module import MODULE, write_module
from pipeline.stages.quantize import open_quantized
from pipeline.stages.workspace import Workspace
from tvm_passes.pipeline import LOWERING, lower


def lower_stage(
    workspace: Workspace, model: FloatModel, quantized: Path, dump: Path | None = None
) -> Path:
    """File with the integer module of a quantized model.

    Args:
        workspace: caches the result.
        model: the float model.
        quantized: folder of the quantized model.
        dump: folder that receives every phase as runnable TVMScript, cached or not.

    Raises:
        UserError: the quantized model belongs to another float model, or cannot be imported.
        LoweringError: an operator cannot be lowered.
    """

    def produce(folder: Path, step: Step) -> None:
        write_module(_lower(model, quantized, None, step), folder)

    if dump is not None:
        with workspace.reporter.step(f"write phases to {dump}", len(LOWERING)) as step:
            _lower(model, quantized, dump, step)
    result = workspace.stage(
        "lower", {}, produce, files=[quantized / DESCRIPTION], total=len(LOWERING)
    )
    return result / MODULE


def _lower(model: FloatModel, quantized: Path, dump: Path | None, step: Step) -> tvm.IRModule:
    module = import_quantized(open_quantized(quantized, model).graph)
    return lower(module, dump, _counter(step))


def _counter(step: Step) -> Callable[[str], None]:
    done = 0

    def count(_: str) -> None:
        nonlocal done
        step.advance(done)
        done += 1

    return count
