"""Equalization: channels of one tensor are brought to comparable ranges, exactly.

`x' = (x + shift) / factor` is what products read; their weights become `W * factor` and their
biases `b - W shift`. This is how a scale per channel becomes one scale per tensor: RepQ-ViT's
reparameterization of LayerNorm (ICCV 2023, section 3.3), HyQ's QADS (IJCAI 2024), and the
channel-wise granularity of Q-HyViT (2023).
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from pipeline.quant import walk
from pipeline.quant.channels import Channels, Reader, channels_of
from pipeline.quant.initial import weight_and_bias
from pipeline.quant.reparam.streams import stream_of

_aten = torch.ops.aten


@dataclass(frozen=True)
class Equalization:
    """Factors and shifts of one tensor's channels.

    Attributes:
        tensor: name of the producer.
        factor: positive, one per channel.
        shift: one per channel, or empty for none; exact only where `Channels.can_shift`.
        stream: the factors are those of the tensor's whole linear stream, so that weights hold all
            of them; see `streams`.
    """

    tensor: str
    factor: tuple[float, ...]
    shift: tuple[float, ...] = ()
    stream: bool = False


def equalize(graph: fx.GraphModule, found: Sequence[Equalization]) -> fx.GraphModule:
    """A copy of the graph with these channels equalized; it computes the same.

    Args:
        graph: canonical graph; it is not changed.
        found: at most one for a tensor.

    Raises:
        KeyError: there is no such tensor.
    """
    result = copy.deepcopy(graph)
    nodes = {node.name: node for node in result.graph.nodes}
    for one in found:
        if one.stream:
            _apply_to_stream(result, nodes[one.tensor], one)
            continue
        channels = channels_of(nodes[one.tensor])
        if channels is None:
            raise KeyError(one.tensor)
        _apply(result, channels, one)
    result.recompile()
    return result


def _apply(graph: fx.GraphModule, channels: Channels, one: Equalization) -> None:
    factor = torch.tensor(one.factor, dtype=torch.float64)
    shift = torch.tensor(one.shift, dtype=torch.float64) if one.shift else None
    for reader in channels.readers:
        _scale_reader(graph, reader, factor, shift)
    users = list(channels.node.users)
    scaled = _call(graph, channels, channels.node, walk.MUL, 1 / factor, "factor")
    if shift is not None:
        scaled = _call(graph, channels, scaled, walk.ADD, shift / factor, "shift")
    for user in users:
        _redirect(graph.graph, user, channels.node, scaled)


def _apply_to_stream(graph: fx.GraphModule, tensor: fx.Node, one: Equalization) -> None:
    stream = stream_of(tensor)
    if stream is None:
        raise KeyError(one.tensor)
    factor = torch.tensor(one.factor, dtype=torch.float64)
    for writer in stream.writers:
        weight, bias = weight_and_bias(graph, writer)
        arguments = list(writer.args)
        with graph.graph.inserting_before(writer):
            scaled = weight.double() / factor.reshape(-1, 1, 1, 1)
            arguments[1] = _constant(graph, f"{writer.name}_stream_weight", scaled)
            if bias is not None:
                arguments[2] = _constant(
                    graph, f"{writer.name}_stream_bias", bias.double() / factor
                )
        writer.args = tuple(arguments)
    for reader in stream.readers:
        _scale_reader(graph, reader, factor, None)


def _redirect(graph: fx.Graph, user: fx.Node, source: fx.Node, scaled: fx.Node) -> None:
    """Let the products behind `user` read `scaled` in place of `source`.

    A view that other operators read as well is split in two.
    """
    readers = [r.target in walk.GEMMS for r in _readers(user)]
    if all(readers):
        user.replace_input_with(source, scaled)
    elif any(readers):
        with graph.inserting_before(user):
            view = graph.node_copy(user, lambda node: scaled if node is source else node)
        for behind in list(user.users):
            _redirect(graph, behind, user, view)


def _readers(user: fx.Node) -> list[fx.Node]:
    """Operators that read a tensor through `user`, which may be one itself."""
    return walk.consumers(user) if user.target in walk.VIEWS else [user]


def _scale_reader(
    graph: fx.GraphModule, reader: Reader, factor: Tensor, shift: Tensor | None
) -> None:
    weight, bias = weight_and_bias(graph, reader.product)
    rows = weight.double().reshape(reader.channel.shape[0], -1, reader.channel.shape[1])
    factor = torch.cat([factor, factor.new_ones(1)])  # of channel -1, another tensor's
    node = reader.product
    with graph.graph.inserting_before(node):
        scaled = (rows * factor[reader.channel].unsqueeze(1)).reshape(weight.shape)
        arguments = list(node.args)
        arguments[1] = _constant(graph, f"{node.name}_equalized_weight", scaled)
        if shift is not None:
            moved = (rows * shift[reader.channel].unsqueeze(1)).sum(-1).flatten()
            before = torch.zeros_like(moved) if bias is None else bias.double()
            arguments[2] = _constant(graph, f"{node.name}_equalized_bias", before - moved)
    node.args = tuple(arguments)


def _call(
    graph: fx.GraphModule,
    channels: Channels,
    source: fx.Node,
    target: object,
    values: Tensor,
    name: str,
) -> fx.Node:
    last = source
    with graph.graph.inserting_after(last):
        constant = _constant(graph, f"{channels.node.name}_{name}", channels.shaped(values))
    with graph.graph.inserting_after(constant):
        node = graph.graph.call_function(target, (source, constant))  # type: ignore[arg-type]
    node.meta = {
        "module_path": source.meta.get("module_path", ""),
        "val": source.meta["val"],
        walk.CHANNEL_FACTOR: True,
    }
    return node


def _constant(graph: fx.GraphModule, name: str, value: Tensor) -> fx.Node:
    graph.register_buffer(name, value.float().contiguous())
    node = graph.graph.get_attr(name)
    node.meta = {"val": value.float().to("meta")}
    return node
