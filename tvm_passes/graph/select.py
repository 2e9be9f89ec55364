"""Choose a kernel for every integer operator and pack its constants."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax

from tvm_passes.errors import LoweringError
from tvm_passes.graph.layout_rules import tensors_of
from tvm_passes.graph.moves import copies_of
from tvm_passes.kernels.choices import Choices, workload
from tvm_passes.kernels.isa import Isa
from tvm_passes.kernels.movement import copy_kernel
from tvm_passes.kernels.registry import KERNELS, WEIGHTS, Kernel
from tvm_passes.lowering.quantized import array_of
from tvm_passes.ops.base import Operator, TensorSpec, config_of, operator_of
from tvm_passes.ops.base import call as integer_call
from tvm_passes.rewrite import Scope, rewrite_main

Made = dict[Any, tuple[relax.GlobalVar, Kernel]]
WORKLOAD, SCHEDULE = "pocketvit.workload", "pocketvit.schedule"  # attributes of a PrimFunc
APART = "pocketvit.apart"  # attributes of the module, JSON
WEIGHT_BITS = "pocketvit.weight_bits"  # of the functions that have weights, their argument WEIGHTS


def select_kernels(mod: tvm.IRModule, isa: Isa, choices: Choices | None = None) -> tvm.IRModule:
    """Replace operators by ``call_tir`` of generated kernels; only reshapes remain.

    Equal operators on equal shapes share a kernel.

    Args:
        mod: integer module.
        isa: instruction set that the kernels may use.
        choices: schedules that are to be used instead of the default ones.

    Raises:
        LoweringError: an operator has no kernel, or its kernel has no such schedule.
    """
    choices = choices or Choices(isa.name)
    apart = choices.apart if choices.isa == isa.name else ()
    mod = _take_apart(mod, apart, isa)
    made: Made = {}
    bits: dict[str, int] = {}

    def rule(scope: Scope, call: relax.Call) -> relax.Expr | None:
        operator = operator_of(call)
        if operator is None:
            return _move(scope, scope.builder.normalize(call), made)
        if operator.name not in KERNELS:
            raise LoweringError(f"operator {operator.name} has no kernel")
        config, arguments = config_of(call), list(call.args[:-1])
        specs = _stored(operator, call, isa)
        key = (operator.name, config, specs)
        if key not in made:
            schedule = choices.schedule(operator.name, config, specs, isa)
            kernel = KERNELS[operator.name](config, specs, isa, schedule)
            name = f"{operator.name}_{len(made)}"
            function = kernel.func.with_attr("global_symbol", name)
            if schedule is not None:
                function = function.with_attr(WORKLOAD, workload(operator.name, config, specs))
                function = function.with_attr(SCHEDULE, json.dumps(asdict(schedule)))
            made[key] = scope.builder.add_func(function, name), kernel
        function, kernel = made[key]
        if KERNELS[operator.name].narrow is not None:
            bits[str(function.name_hint)] = int(specs[WEIGHTS].dtype.removeprefix("int"))
        if kernel.pack is not None:
            for index, values in kernel.pack(_constants(arguments)).items():
                arguments[index] = relax.const(np.ascontiguousarray(values))
        out = operator.infer(config, specs)
        return relax.op.call_tir(
            function, relax.Tuple(arguments), relax.TensorType(out.shape, out.dtype)
        )

    selected = rewrite_main(mod, rule).with_attr(APART, json.dumps(apart))
    return selected.with_attr(WEIGHT_BITS, json.dumps(bits))


def _stored(operator: Operator, call: relax.Call, isa: Isa) -> tuple[TensorSpec, ...]:
    """The specs of an operator's arguments, weights in the type that they are stored in."""
    arguments = call.args[:-1]
    specs = tuple(TensorSpec.of(argument) for argument in arguments)
    return KERNELS[operator.name].stored(config_of(call), specs, _constants(arguments), isa)


def _constants(arguments: Sequence[relax.Expr]) -> dict[int, NDArray[Any]]:
    arrays = enumerate(map(array_of, arguments))
    return {index: array for index, array in arrays if array is not None}


def _take_apart(mod: tvm.IRModule, workloads: tuple[str, ...], isa: Isa) -> tvm.IRModule:
    """Replace fused calls by calls of their steps."""

    def rule(scope: Scope, call: relax.Call) -> relax.Expr | None:
        operator = operator_of(call)
        if operator is None or operator.name != "fused":
            return None
        config, known = config_of(call), list(call.args[:-1])
        if workload("fused", config, _stored(operator, call, isa)) not in workloads:
            return None
        for step in config.steps:
            inputs = [known[index] for index in step.inputs]
            known.append(scope.emit(integer_call(step.operator, step.decoded(), *inputs)))
        return known[-1]

    return rewrite_main(mod, rule) if workloads else mod


def _move(scope: Scope, call: relax.Call, made: Made) -> relax.Expr | None:
    """What only moves data, as copies."""
    copies = copies_of(call)
    if copies is None:
        return None
    arguments, out = tensors_of(call), TensorSpec.of(call)
    specs = tuple(TensorSpec.of(argument) for argument in arguments)
    key = (copies, specs)
    if key not in made:
        name = f"{str(call.op.name).removeprefix('relax.')}_{len(made)}"
        kernel = copy_kernel(copies, specs, out)
        function = kernel.func.with_attr("global_symbol", name)
        made[key] = scope.builder.add_func(function, name), kernel
    return relax.op.call_tir(
        made[key][0], relax.Tuple(arguments), relax.TensorType(out.shape, out.dtype)
    )


def chosen(mod: tvm.IRModule, isa: Isa) -> Choices:
    """The choices that a module's kernels were generated by."""
    kernels = {}
    for _, function in mod.functions_items():
        attributes = function.attrs or {}
        if SCHEDULE in attributes:
            kernels[str(attributes[WORKLOAD])] = json.loads(str(attributes[SCHEDULE]))
    return Choices(isa.name, kernels, tuple(json.loads(str(mod.attrs[APART]))))
