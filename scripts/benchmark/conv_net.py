"""Our kernels of the small network of two convolutions.

It takes 16 channels and is no classifier, so that it cannot be a library of its own: the same
passes lower it, but the Relax virtual machine calls the kernels.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tvm
import tvm.rpc
from torch import nn
from tvm import relax
from tvm.support import cc

from pipeline.device import emulated_device
from pipeline.device.profile import BlockProfile, parse_profile
from scripts.benchmark.networks import CONV_NET, load_network
from tvm_passes.aot import TARGETS
from tvm_passes.kernels.isa import ISAS
from tvm_passes.ops.base import call
from tvm_passes.ops.qdq import DequantizeConfig, PointwiseConfig, QuantizeConfig
from tvm_passes.pipeline import LOWERING, to_kernels

ENDS = ("take_pixels", "return_codes")  # those of a library
COMPILER = "aarch64-linux-gnu-gcc"
INPUT_SCALE, SCALE, ZERO_POINT = 0.03, 0.02, -128
TIMEOUT = 600  # seconds
# TVM's own without the pass that looks for reshapes, which wants every kernel to be one block.
BUILD = tvm.transform.Sequential(
    [
        relax.transform.ToNonDataflow(),
        relax.transform.RemovePurityChecking(),
        relax.transform.CallTIRRewrite(),
        relax.transform.StaticPlanBlockMemory(),
        relax.transform.LowerAllocTensor(),
        relax.transform.KillAfterLastUse(),
        relax.transform.LowerRuntimeBuiltin(),
        relax.transform.ComputePrimValue(),
        relax.transform.VMShapeLower(),
        relax.transform.AttachGlobalSymbol(),
    ]
)


def count_conv_net(target: str, cpu: str) -> BlockProfile:
    """Run the network for a target on an emulated CPU that counts.

    Raises:
        UserError: the emulator cannot be built.
        LoweringError: a kernel is missing.
    """
    spec = TARGETS[target]
    module = integer_module()
    kernels = to_kernels(module, ISAS[spec.isa])
    executable = tvm.compile(kernels, target=spec.tvm_target(), relax_pipeline=BUILD)
    shape = [int(extent) for extent in module["main"].params[0].ty.shape]
    codes = np.random.default_rng(0).integers(-128, 128, shape, np.int8)
    with tempfile.TemporaryDirectory() as folder, emulated_device(cpu) as device:
        library = Path(folder) / "conv_net.so"
        executable.export_library(str(library), fcompile=cc.cross_compiler(COMPILER))
        tracker = tvm.rpc.connect_tracker(device.tracker.host, device.tracker.port)
        session = tracker.request(device.key, session_timeout=TIMEOUT)
        session.upload(str(library))
        machine = relax.VirtualMachine(session.load_module(library.name), session.cpu(0))
        machine.set_input("main", tvm.runtime.tensor(codes, session.cpu(0)))
        count = session.get_function("dev.icount")
        text = str(count(machine.module, "invoke_stateful", 1, 1, "main"))
    return parse_profile(text, 1)


def integer_module() -> tvm.IRModule:
    """The network in integers: ``main(codes: int8 [1, 56, 56, 16]) -> int8 [1, 56, 56, 64]``."""
    module = _quantized_module()
    for phase in LOWERING:
        if phase.name not in ENDS:
            module = phase.run(module)
    return module


def _quantized_module() -> tvm.IRModule:
    network = load_network(CONV_NET)
    _, channels, height, width = network.shape
    builder = relax.BlockBuilder()
    codes = relax.Var("codes", relax.TensorType((1, height, width, channels), "int8"))
    with builder.function("main", [codes]):
        with builder.dataflow():
            x = builder.emit(_dequantize(codes, INPUT_SCALE, 0))
            x = builder.emit(relax.op.permute_dims(x, [0, 3, 1, 2]))
            for layer in network.module.children():
                assert isinstance(layer, nn.Conv2d)
                codes = _convolution(builder, x, layer)
                x = builder.emit(_dequantize(codes, SCALE, ZERO_POINT))
            result = builder.emit_output(relax.op.permute_dims(codes, [0, 2, 3, 1]))
        builder.emit_func_output(result)
    return builder.get()


def _convolution(builder: relax.BlockBuilder, x: relax.Var, layer: nn.Conv2d) -> relax.Var:
    """Codes of ``relu(conv2d(x))``."""
    weights = layer.weight.detach().numpy()
    scales = np.abs(weights).max(axis=(1, 2, 3)) / 127
    codes = np.round(weights / scales[:, None, None, None]).astype(np.int8)
    zeros = np.zeros(len(scales))
    w = builder.emit(_dequantize(relax.const(codes), scales, zeros, axis=0))
    padding = layer.padding if isinstance(layer.padding, tuple) else (0, 0)
    y = builder.emit(relax.op.nn.conv2d(x, w, padding=padding))
    assert layer.bias is not None
    bias = layer.bias.detach().numpy()[None, :, None, None]
    y = builder.emit(relax.op.add(y, relax.const(bias)))
    y = builder.emit(call("pointwise", PointwiseConfig("relu"), y))
    config = QuantizeConfig(-128, 127, -1, "int8", "relu")
    scale, zero = np.asarray(SCALE, np.float32), np.asarray(ZERO_POINT, np.int32)
    return builder.emit(call("quantize", config, y, scale, zero))


def _dequantize(codes: relax.Expr, scale: Any, zero: Any, axis: int = -1) -> relax.Call:
    arrays = np.asarray(scale, np.float32), np.asarray(zero, np.int32)
    return call("dequantize", DequantizeConfig(axis), codes, *arrays)
