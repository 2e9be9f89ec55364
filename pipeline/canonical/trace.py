"""From a PyTorch module to an fx graph over the raw image."""

from typing import Any

import torch
from torch import Tensor, fx

from pipeline.canonical.graph import ADD, MUL, PERMUTE, GraphModule, Node, call
from pipeline.errors import UserError
from pipeline.models import LoadedModel


def trace(loaded: LoadedModel) -> GraphModule:
    """Exports a model; its preprocessing becomes a multiplication and an addition in front.

    Returns:
        A graph from `image`, float32 `[1, S, S, 3]` with values 0..255, to the logits. Parameters,
        buffers and lifted constants are buffers of the root.

    Raises:
        UserError: the model cannot be exported.
    """
    size = loaded.preprocessing.input_size
    try:
        program = torch.export.export(loaded.module, (torch.zeros(1, 3, size, size),))
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"Model {loaded.name} cannot be exported ({reason}); choose a model without "
            "data-dependent control flow."
        ) from error
    gm = from_exported(program)
    _prepend_preprocessing(gm, loaded)
    return gm


def from_exported(program: torch.export.ExportedProgram) -> GraphModule:
    """Turns an exported program with one input and one output into a graph module.

    Raises:
        UserError: the program has more inputs or outputs, or changes a buffer.
    """
    signature = program.graph_signature
    if len(signature.user_inputs) != 1 or len(signature.output_specs) != 1:
        raise UserError(
            "The model must take one image and return one tensor and keep no state; "
            "choose an image classification model."
        )
    names = signature.inputs_to_parameters | signature.inputs_to_buffers
    names |= signature.inputs_to_lifted_tensor_constants
    stored: dict[str, Any] = dict(program.state_dict) | dict(program.constants)
    root = torch.nn.Module()
    graph = fx.Graph()
    copies: dict[Node, Node] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in names:
            buffer = names[node.name].replace(".", "_")
            # A copy: no rewrite can reach the model that its result is compared with.
            root.register_buffer(buffer, stored[names[node.name]].detach().clone())
            copy = graph.get_attr(buffer)
        elif node.op == "get_attr":
            raise UserError(
                f"Module '{_module_path(node)}' runs a part of itself in another mode (control "
                "flow, autocast); choose a model without that."
            )
        else:
            copy = graph.node_copy(node, lambda source: copies[source])
        if node.op == "output":
            copy.args = (copy.all_input_nodes[0],)
        copy.meta = {"module_path": _module_path(node), "val": _to_meta(node.meta.get("val"))}
        copies[node] = copy
    return GraphModule(root, graph)


def _to_meta(value: object) -> object:
    if isinstance(value, list | tuple):
        return tuple(_to_meta(item) for item in value)
    if isinstance(value, Tensor):
        return torch.empty(value.shape, dtype=value.dtype, device="meta")
    return value


def _module_path(node: Node) -> str:
    stack = node.meta.get("nn_module_stack")
    return str(list(stack.values())[-1][0]) if stack else ""


def _prepend_preprocessing(gm: GraphModule, loaded: LoadedModel) -> None:
    """Replaces the network's input by (image / 255 - mean) / std, channels first."""
    settings = loaded.preprocessing
    (placeholder,) = gm.graph.find_nodes(op="placeholder")
    first_user = next(node for node in gm.graph.nodes if placeholder in node.all_input_nodes)
    std = torch.tensor(settings.std, dtype=torch.float64).reshape(1, 3, 1, 1)
    mean = torch.tensor(settings.mean, dtype=torch.float64).reshape(1, 3, 1, 1)
    with gm.graph.inserting_before(placeholder):
        image = gm.graph.placeholder("image")
    side = settings.input_size
    image.meta = {"module_path": "", "val": torch.empty(1, side, side, 3, device="meta")}
    pixels = call(gm, first_user, PERMUTE, image, [0, 3, 1, 2], module_path="image")
    result = call(gm, first_user, MUL, pixels, 1 / (255 * std), module_path="image")
    if mean.any():
        result = call(gm, first_user, ADD, result, -mean / std, module_path="image")
    placeholder.replace_all_uses_with(result)
    gm.graph.erase_node(placeholder)
