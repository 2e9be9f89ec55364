"""Writing the QDQ graph: nodes with their metadata, and the tensors they refer to."""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from pipeline.quant import ops
from pipeline.quant.calibration import AdaLogParameters, UniformParameters
from pipeline.quant.formats import AdaLog, Uniform
from pipeline.quant.weights import QuantizedWeight

_NAMESPACE = torch.ops.pocketvit


class GraphWriter:
    """Builds a new GraphModule from pieces of `source` and new tensors."""

    def __init__(self, source: fx.GraphModule) -> None:
        """Start an empty graph; nodes are to be copied in the order of `source`."""
        self._source = source
        self._graph = fx.Graph()
        self._tensors: dict[str, Tensor] = {}

    def tensor(self, constant: fx.Node) -> Tensor:
        """The stored tensor that a `get_attr` node of the source refers to."""
        value = operator.attrgetter(str(constant.target))(self._source)
        assert isinstance(value, Tensor)
        return value.detach()

    def copy(self, node: fx.Node, inputs: Mapping[fx.Node, fx.Node]) -> fx.Node:
        """Copy a node of the source with its metadata."""
        if node.op == "get_attr":
            self._tensors[str(node.target)] = self.tensor(node)
        return self._graph.node_copy(node, lambda n: inputs[n])

    def constant(self, name: str, value: Tensor) -> fx.Node:
        """A new stored tensor."""
        name = name.replace(".", "_")
        assert name not in self._tensors or torch.equal(self._tensors[name], value)
        self._tensors[name] = value
        node = self._graph.get_attr(name)
        node.meta["val"] = torch.empty_like(value, device="meta")
        return node

    def uniform_pair(
        self, value: fx.Node, target: Uniform, found: UniformParameters, name: str, role: str
    ) -> fx.Node:
        """Quantize `value` and dequantize it; returns the latter."""
        stem = f"{value.name}_{role}"
        scale = self.constant(f"{stem}_scale", torch.tensor(found.scale))
        zero = self.constant(
            f"{stem}_zero_point", torch.tensor(found.zero_point, dtype=torch.int32)
        )
        codes = self._call(
            _NAMESPACE.quantize.default,
            (value, scale, zero, target.qmin, target.qmax, -1, target.dtype, name),
            like=value,
            dtype=ops.DTYPES[target.dtype],
        )
        codes.meta["role"] = role
        restored = (codes, scale, zero, -1)
        return self._call(_NAMESPACE.dequantize.default, restored, value, torch.float32)

    def adalog_pair(
        self, value: fx.Node, target: AdaLog, found: AdaLogParameters, name: str, role: str
    ) -> fx.Node:
        """Like `uniform_pair`."""
        scale = self.constant(f"{value.name}_{role}_scale", torch.tensor(found.scale))
        codes = self._call(
            _NAMESPACE.adalog_quantize.default,
            (value, scale, found.q, target.bits, target.shift, name),
            like=value,
            dtype=torch.uint8,
        )
        codes.meta["role"] = role
        restored = (codes, scale, found.q, target.bits, target.shift)
        return self._call(_NAMESPACE.adalog_dequantize.default, restored, value, torch.float32)

    def weight(self, stem: str, weight: QuantizedWeight, axis: int) -> fx.Node:
        """Stored codes (called `<stem>_codes`) and the node that dequantizes them."""
        codes = self.constant(f"{stem}_codes", weight.codes)
        scale = self.constant(f"{stem}_scale", weight.scale)
        zero = torch.zeros_like(weight.scale, dtype=torch.int32)
        zero_point = self.constant(f"{stem}_zero_point", zero)
        arguments = (codes, scale, zero_point, axis)
        return self._call(_NAMESPACE.dequantize.default, arguments, codes, torch.float32)

    def finish(self) -> fx.GraphModule:
        """The module, without the tensors that nothing refers to any more."""
        self._graph.eliminate_dead_code()
        used = {str(n.target) for n in self._graph.nodes if n.op == "get_attr"}
        tensors = {name: value for name, value in self._tensors.items() if name in used}
        self._graph.lint()
        return fx.GraphModule(tensors, self._graph, class_name="QuantizedGraph")

    def _call(
        self, target: Callable[..., Any], args: tuple[Any, ...], like: fx.Node, dtype: torch.dtype
    ) -> fx.Node:
        node = self._graph.call_function(target, args)
        node.meta["module_path"] = like.meta.get("module_path", "")
        if "val" in like.meta:
            node.meta["val"] = torch.empty_like(like.meta["val"], dtype=dtype)
        return node
