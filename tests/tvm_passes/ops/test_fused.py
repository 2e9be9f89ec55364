"""``fused`` means its steps, one after the other."""

import numpy as np

from tests.tvm_passes.run_kernel import codes
from tvm_passes.ops.base import OPERATORS, TensorSpec, call, config_of, encode
from tvm_passes.ops.elementwise import requantize_config
from tvm_passes.ops.fused import FusedConfig, Step
from tvm_passes.ops.gemm import LinearConfig
from tvm_passes.ops.pad import PadConfig

LINEAR = LinearConfig(0, 0, -32768, 32767, "int16")
RESCALE = requantize_config(0.5, 0, 1.0, 3, -128, 127, "int8")
PAD = PadConfig((1, 0), (0, 2), 3)


def steps() -> FusedConfig:
    return FusedConfig(
        (
            Step("linear", encode(LINEAR), (0, 1, 2, 3)),
            Step("requantize", encode(RESCALE), (4,)),
            Step("pad", encode(PAD), (5,)),
        )
    )


def arrays() -> list[np.ndarray]:
    multiplier = np.full(6, 2**27, np.int32)
    bias = np.arange(6, dtype=np.int32)[None]
    x, w = codes("int8", 1, 3, 4, 8), codes("int8", 6, 8)
    return [x, w, bias, multiplier]


def test_the_reference_runs_the_references_of_the_steps() -> None:
    product = OPERATORS["linear"].reference(LINEAR, *arrays())
    rescaled = OPERATORS["requantize"].reference(RESCALE, product)
    expected = OPERATORS["pad"].reference(PAD, rescaled)
    got = OPERATORS["fused"].reference(steps(), *arrays())
    np.testing.assert_array_equal(got, expected)


def test_the_type_is_that_of_the_last_step() -> None:
    specs = [TensorSpec(array.shape, str(array.dtype)) for array in arrays()]
    assert OPERATORS["fused"].infer(steps(), specs) == TensorSpec((1, 4, 6, 6), "int8")


def test_a_call_carries_its_steps() -> None:
    assert config_of(call("fused", steps(), *arrays())) == steps()
