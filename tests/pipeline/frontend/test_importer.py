"""The imported Relax module computes what the quantized torch graph computes."""

import numpy as np
import pytest
import torch
from torch import fx, nn

import tvm_passes.ops  # noqa: F401  registers R.pocketvit
from pipeline.errors import UserError
from pipeline.frontend.convert import CONVERTERS
from pipeline.frontend.importer import import_quantized
from pipeline.quant import ops  # noqa: F401  registers torch.ops.pocketvit
from tests.tvm_passes.modules import configs, float_value
from tvm_passes.interpret import interpret
from tvm_passes.lowering.io import logits_scale
from tvm_passes.ops.qdq import (
    DequantizeLogConfig,
    DequantizeTwinConfig,
    QuantizeLogConfig,
    QuantizeTwinConfig,
)
from tvm_passes.pipeline import lower

SCALES = {"image": 1.0, "conv": 3e-3, "act": 0.5, "mean": 0.25, "head": 1e-3}


class _Network(nn.Module):
    """Pixels, a padded convolution, SiLU, a mean and a linear layer, all of them quantized."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        for name, shape in (("conv", (8, 3, 3, 3)), ("head", (5, 8))):
            codes = torch.randint(-127, 128, shape, generator=generator, dtype=torch.int8)
            self.register_buffer(f"{name}_codes", codes)
            self.register_buffer(f"{name}_scale", torch.rand(shape[0], generator=generator) * 1e-3)
            self.register_buffer(f"{name}_zero", torch.zeros(shape[0], dtype=torch.int32))
            self.register_buffer(f"{name}_bias", torch.rand(shape[0], generator=generator))
        for name, scale in SCALES.items():
            self.register_buffer(f"{name}_step", torch.tensor(scale))
        self.register_buffer("no_zero", torch.tensor(0, dtype=torch.int32))

    def _round_trip(self, x: torch.Tensor, name: str, dtype: str, qmax: int) -> torch.Tensor:
        step, qmin = getattr(self, f"{name}_step"), 0 if dtype == "uint8" else -qmax
        codes = torch.ops.pocketvit.quantize(x, step, self.no_zero, qmin, qmax, -1, dtype, name)
        return torch.ops.pocketvit.dequantize(codes, step, self.no_zero, -1)

    def _weight(self, name: str) -> torch.Tensor:
        parts = (getattr(self, f"{name}_{part}") for part in ("codes", "scale", "zero"))
        return torch.ops.pocketvit.dequantize(*parts, 0)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self._round_trip(image, "image", "uint8", 255).permute(0, 3, 1, 2)
        aten = torch.ops.aten
        x = aten.conv2d.default(x, self._weight("conv"), self.conv_bias, [2, 2], [1, 1], [1, 1], 1)
        x = self._round_trip(x, "conv", "int16", 32767)
        x = self._round_trip(aten.silu.default(x), "act", "int8", 127)
        x = self._round_trip(aten.mean.dim(x, [2, 3], False), "mean", "int8", 127)
        x = aten.linear.default(x, self._weight("head"), self.head_bias)
        return self._round_trip(x, "head", "int32", 2**31 - 1)


def _graph(network: nn.Module, *shape: int) -> fx.GraphModule:
    with torch.no_grad():
        graph = torch.export.export(network, (torch.zeros(shape),)).module()
    for node in list(graph.graph.nodes):
        if "_guards" in str(node.target) or "sym_constrain" in str(node.target):
            graph.graph.erase_node(node)
    graph.recompile()
    return graph


def test_integers_follow_the_simulation() -> None:
    graph = _graph(_Network(), 1, 8, 8, 3)
    lowered = lower(import_quantized(graph))
    pixels = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), np.uint8)
    simulated = graph(torch.from_numpy(pixels.astype(np.float32))).detach().numpy()
    integer = interpret(lowered, pixels) * logits_scale(lowered)
    step = 0.25 * 127 * 1e-3  # one code of the mean, through the largest weight
    np.testing.assert_allclose(integer, simulated, atol=3 * step)
    assert np.abs(simulated).max() > 10 * step


def test_unknown_operators_are_named_with_their_module() -> None:
    class Cosine(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.cos(image)

    graph = fx.symbolic_trace(Cosine())
    for node in graph.graph.nodes:
        node.meta["module_path"] = "blocks.3.wave"
    with pytest.raises(UserError, match=r"cos.*blocks\.3\.wave"):
        import_quantized(graph)


def test_every_converter_is_named_like_an_overload() -> None:
    assert all("." in name for name in CONVERTERS)


class _Formats(nn.Module):
    """Logarithmic codes, then twin ones."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("greatest", torch.tensor(0.5))
        self.register_buffer("step", torch.tensor(0.01))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        formats = torch.ops.pocketvit
        x = formats.adalog_quantize(image, self.greatest, 1, 2, 4, 0.1, "log")
        x = formats.adalog_dequantize(x, self.greatest, 1, 2, 4, 0.1)
        x = formats.twin_quantize(x, self.step, 2, 8, True, "twin")
        return formats.twin_dequantize(x, self.step, 2, 8, True)


def test_other_formats_mean_the_same_on_both_sides() -> None:
    graph = _graph(_Formats(), 1, 2, 2, 3)
    module = import_quantized(graph)
    assert configs(module, "quantize_twin") == [QuantizeTwinConfig(2, 8, True, "twin")]
    assert configs(module, "dequantize_twin") == [DequantizeTwinConfig(2, 8, True)]
    assert configs(module, "quantize_log") == [QuantizeLogConfig(1, 2, 4, 0.1, "log")]
    assert configs(module, "dequantize_log") == [DequantizeLogConfig(1, 2, 4, 0.1)]
    image = torch.linspace(-0.2, 0.5, 12).reshape(1, 2, 2, 3)
    expected = graph(image)
    np.testing.assert_allclose(float_value(module, image.numpy()), expected, rtol=1e-6)
    assert len(expected.unique()) > 4 and expected.min() < 0 < expected.max()
