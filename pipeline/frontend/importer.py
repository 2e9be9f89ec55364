"""Import of a quantized graph: torch.export, then TVM's importer with our conversion table."""

import torch
import tvm
from torch import fx
from tvm.relax.frontend.torch import from_exported_program

from pipeline.errors import UserError
from pipeline.frontend.convert import CONVERTERS


def import_quantized(graph: fx.GraphModule) -> tvm.IRModule:
    """Relax module of a QDQ graph: ``main(image: float32 [1, H, W, 3]) -> float32 [1, classes]``.

    Args:
        graph: canonical graph with the custom quantization operators inserted.

    Raises:
        UserError: the graph has an operator without a conversion; names it and its module.
    """
    for node in graph.graph.nodes:
        if node.op == "call_function" and node.target.__name__ not in CONVERTERS:
            path = node.meta.get("module_path") or node.name
            raise UserError(
                f"Operator {node.target} of module {path} cannot be imported; supported are "
                f"{', '.join(sorted(CONVERTERS))}."
            )
    (image,) = (node for node in graph.graph.nodes if node.op == "placeholder")
    example = torch.zeros(tuple(image.meta["val"].shape))
    with torch.no_grad():
        exported = torch.export.export(graph, (example,))
    return from_exported_program(
        exported,
        custom_convert_map=CONVERTERS,
        run_ep_decomposition=False,
        unwrap_unit_return_tuple=True,
    )
