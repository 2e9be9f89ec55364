"""Writing the QDQ graph: nodes with their metadata, and the tensors they refer to."""

import json
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from pipeline.quant import ops
from pipeline.quant.quantizers import Quantizer, to_json
from pipeline.quant.quantizers.logarithmic import LogarithmicQuantizer
from pipeline.quant.quantizers.twin import TwinQuantizer
from pipeline.quant.quantizers.uniform import UniformQuantizer

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

    def constant_before(self, node: fx.Node, name: str, value: Tensor) -> fx.Node:
        """A new stored tensor that a node already written is to read."""
        with self._graph.inserting_before(node):
            return self.constant(name, value)

    def pair(self, value: fx.Node, quantizer: Quantizer, name: str, role: str) -> fx.Node:
        """Quantize `value` and dequantize it; returns the latter.

        Args:
            value: node of the new graph.
            quantizer: of the tensor.
            name: module path and role, for diagnostics.
            role: of the tensor.
        """
        stem = f"{value.name}_{role}"
        if isinstance(quantizer, UniformQuantizer):
            # a tensor may have two copies, one of them symmetric
            stem += "_symmetric" if quantizer.format.symmetric else ""
            codes, restored = self._uniform(value, quantizer.stored(), stem, name)
        elif quantizer.format.published:
            codes = restored = self._published(value, quantizer, name)
        elif isinstance(quantizer, LogarithmicQuantizer):
            codes, restored = self._logarithmic(value, quantizer, stem, name)
        else:
            codes, restored = self._twin(value, quantizer, stem, name)
        codes.meta["role"] = role
        codes.meta["format"] = str(quantizer.format)
        return restored

    def _uniform(
        self, value: fx.Node, quantizer: UniformQuantizer, stem: str, name: str
    ) -> tuple[fx.Node, fx.Node]:
        form, shape = quantizer.format, () if quantizer.is_per_tensor else (-1,)
        scale_value = torch.tensor(quantizer.scale, dtype=torch.float32).reshape(shape)
        zero_value = torch.tensor(quantizer.zero_point, dtype=torch.int32).reshape(shape)
        scale = self.constant(f"{stem}_scale", scale_value)
        zero = self.constant(f"{stem}_zero_point", zero_value)
        codes = self._call(
            _NAMESPACE.quantize.default,
            (value, scale, zero, form.qmin, form.qmax, quantizer.axis, form.dtype, name),
            value,
            ops.DTYPES[form.dtype],
        )
        arguments = (codes, scale, zero, quantizer.axis)
        return codes, self._call(_NAMESPACE.dequantize.default, arguments, value, torch.float32)

    def _logarithmic(
        self, value: fx.Node, quantizer: LogarithmicQuantizer, stem: str, name: str
    ) -> tuple[fx.Node, fx.Node]:
        form, q = quantizer.format, quantizer.q
        scale = self.constant(f"{stem}_scale", torch.tensor(quantizer.scale))
        arguments = (value, scale, q, form.r, form.bits, form.shift, name)
        codes = self._call(_NAMESPACE.adalog_quantize.default, arguments, value, torch.uint8)
        back = (codes, scale, q, form.r, form.bits, form.shift)
        return codes, self._call(_NAMESPACE.adalog_dequantize.default, back, value, torch.float32)

    def _twin(
        self, value: fx.Node, quantizer: TwinQuantizer, stem: str, name: str
    ) -> tuple[fx.Node, fx.Node]:
        form, ratio = quantizer.format, quantizer.ratio
        scale = self.constant(f"{stem}_scale", torch.tensor(quantizer.scale))
        arguments = (value, scale, ratio, form.bits, form.signed, name)
        codes = self._call(_NAMESPACE.twin_quantize.default, arguments, value, torch.uint8)
        back = (codes, scale, ratio, form.bits, form.signed)
        return codes, self._call(_NAMESPACE.twin_dequantize.default, back, value, torch.float32)

    def _published(self, value: fx.Node, quantizer: Quantizer, name: str) -> fx.Node:
        arguments = (value, json.dumps(to_json(quantizer)), name)
        return self._call(_NAMESPACE.published.default, arguments, value, torch.float32)

    def weight(self, stem: str, codes: Tensor, scale: Tensor, axis: int) -> fx.Node:
        """Stored codes (called `<stem>_codes`) and the node that dequantizes them."""
        stored = self.constant(f"{stem}_codes", codes)
        scales = self.constant(f"{stem}_scale", scale)
        zeros = self.constant(f"{stem}_zero_point", torch.zeros_like(scale, dtype=torch.int32))
        arguments = (stored, scales, zeros, axis)
        return self._call(_NAMESPACE.dequantize.default, arguments, stored, torch.float32)

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
