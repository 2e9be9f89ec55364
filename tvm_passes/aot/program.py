"""The Relax main function as a straight-line program of kernel calls over tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tvm import IRModule, relax, tirx
from tvm.ir.expr import GenericConst

from tvm_passes.aot.plan import Lifetime
from tvm_passes.errors import LoweringError
from tvm_passes.ops.base import TensorSpec


@dataclass(frozen=True)
class Tensor:
    """A view of a buffer.

    Attributes:
        space: "arena" (activations) or "params" (constants).
        buffer: index among the arena's buffers or among the program's constants.
        spec: shape and dtype of this view.
    """

    space: Literal["arena", "params"]
    buffer: int
    spec: TensorSpec


@dataclass(frozen=True)
class Layer:
    """One kernel call.

    Attributes:
        name: for profiles: the Relax variable's name, or the kernel's where that was invented.
        kernel: name of the PrimFunc.
        args: tensor indices in the kernel's order, the output last.
    """

    name: str
    kernel: str
    args: tuple[int, ...]


@dataclass(frozen=True)
class Program:
    """Kernel calls in order, and what they work on.

    Attributes:
        tensors: every view that a layer or the caller touches, no two equal.
        buffers: the arena's buffers with their lifetimes in layers.
        constants: distinct constants.
        layers: the calls.
        image: tensor index of the input.
        logits: tensor index of the output.
    """

    tensors: tuple[Tensor, ...]
    buffers: tuple[Lifetime, ...]
    constants: tuple[NDArray[Any], ...]
    layers: tuple[Layer, ...]
    image: int
    logits: int


def linearize(mod: IRModule) -> Program:
    """Read ``main`` of a lowered module.

    Args:
        mod: ``main(image: uint8 [1, H, W, 3]) -> int32 [1, classes]`` made of ``R.call_tir`` to
            PrimFuncs of the module, ``R.reshape`` and constants, with static shapes.

    Raises:
        LoweringError: something else stands in ``main``; the message names it.
    """
    main = mod["main"]
    if len(main.params) != 1 or not isinstance(main.body, relax.SeqExpr):
        raise LoweringError("main must take exactly the image and be in A-normal form")
    builder = _Builder(mod)
    image = builder.new_buffer(_spec(main.params[0], "image"), layer=0)
    builder.values[main.params[0]] = image
    for block in main.body.blocks:
        for binding in block.bindings:
            if not isinstance(binding, relax.VarBinding):
                raise LoweringError(f"{binding} is not a plain binding; lower it to R.call_tir")
            builder.values[binding.var] = builder.bind(binding.var, binding.value)
    logits = builder.operand(main.body.body, "the output of main")
    _check_interface(builder.tensors[image].spec, builder.tensors[logits].spec)
    if not builder.layers or builder.tensors[logits].space != "arena":
        raise LoweringError("main calls no kernel, or returns a constant")
    return builder.finish(image, logits)


def _check_interface(image: TensorSpec, logits: TensorSpec) -> None:
    good_image = image.dtype == "uint8" and len(image.shape) == 4
    if not good_image or image.shape[0] != 1 or image.shape[3] != 3:
        raise LoweringError(f"main's input is {image}; it must be uint8 of shape (1, H, W, 3)")
    if logits.dtype != "int32" or len(logits.shape) != 2 or logits.shape[0] != 1:
        raise LoweringError(f"main's output is {logits}; it must be int32 of shape (1, classes)")


@dataclass
class _Builder:
    mod: IRModule
    values: dict[relax.Var, int] = field(default_factory=dict)
    tensors: list[Tensor] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    constants: list[NDArray[Any]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    first: list[int] = field(default_factory=list)
    _tensor_index: dict[Tensor, int] = field(default_factory=dict)
    _constant_index: dict[bytes, int] = field(default_factory=dict)

    def tensor(self, tensor: Tensor) -> int:
        if tensor not in self._tensor_index:
            self._tensor_index[tensor] = len(self.tensors)
            self.tensors.append(tensor)
        return self._tensor_index[tensor]

    def new_buffer(self, spec: TensorSpec, layer: int) -> int:
        self.sizes.append(_nbytes(spec))
        self.first.append(layer)
        return self.tensor(Tensor("arena", len(self.sizes) - 1, spec))

    def constant(self, expr: GenericConst) -> int:
        array = np.ascontiguousarray(expr.value.numpy())
        content = array.tobytes()
        if content not in self._constant_index:
            self._constant_index[content] = len(self.constants)
            self.constants.append(array)
        return self.tensor(Tensor("params", self._constant_index[content], TensorSpec.of(expr)))

    def operand(self, expr: relax.Expr, where: str) -> int:
        if isinstance(expr, GenericConst):
            return self.constant(expr)
        if expr in self.values:
            return self.values[expr]
        raise LoweringError(f"{where} is {expr}; it must be a variable or a constant")

    def bind(self, var: relax.Var, value: relax.Expr) -> int:
        where = f"the value of {var.name}"
        if not isinstance(value, relax.Call):
            return self.operand(value, where)
        operator = str(getattr(value.op, "name", value.op))
        if operator == "relax.reshape":
            source = self.tensors[self.operand(value.args[0], where)]
            return self.tensor(Tensor(source.space, source.buffer, _spec(var, where)))
        if operator == "relax.call_tir" and len(value.args) == 2:
            return self.call(var, value)
        raise LoweringError(f"{where} calls {operator}; only R.call_tir and R.reshape are lowered")

    def call(self, var: relax.Var, value: relax.Call) -> int:
        kernel = str(value.args[0].name_hint)
        if not isinstance(self.mod[value.args[0]], tirx.PrimFunc):
            raise LoweringError(f"{var.name} calls {kernel}, which is not a PrimFunc")
        args = [self.operand(arg, f"an argument of {kernel}") for arg in value.args[1].fields]
        output = self.new_buffer(_spec(var, f"the output of {kernel}"), len(self.layers))
        self.layers.append(Layer(_layer_name(str(var.name), kernel), kernel, (*args, output)))
        return output

    def finish(self, image: int, logits: int) -> Program:
        last = list(self.first)
        for index, layer in enumerate(self.layers):
            for tensor in (self.tensors[arg] for arg in layer.args):
                if tensor.space == "arena":
                    last[tensor.buffer] = index
        last[self.tensors[logits].buffer] = len(self.layers) - 1
        return Program(
            tensors=tuple(self.tensors),
            buffers=tuple(map(Lifetime, self.sizes, self.first, last)),
            constants=tuple(self.constants),
            layers=tuple(self.layers),
            image=image,
            logits=logits,
        )


def _nbytes(spec: TensorSpec) -> int:
    return int(np.prod(spec.shape, dtype=np.int64)) * np.dtype(spec.dtype).itemsize


def _spec(expr: relax.Expr, where: str) -> TensorSpec:
    """Spec of one tensor of static shape."""
    try:
        return TensorSpec.of(expr)
    except (TypeError, ValueError, AttributeError) as error:
        raise LoweringError(f"{where} has type {expr.ty}; it must be one static tensor") from error


def _layer_name(variable: str, kernel: str) -> str:
    """The variable's name unless a BlockBuilder invented it ("lv", "gv12")."""
    stem = variable.rstrip("0123456789").rstrip("_")
    return kernel if stem in ("lv", "gv") else variable


def used_kernels(layers: Sequence[Layer]) -> tuple[str, ...]:
    """Names of the kernels in the order of their first call."""
    return tuple(dict.fromkeys(layer.kernel for layer in layers))
