"""Reference and type of ``pad``."""

import numpy as np

from tvm_passes.ops.base import OPERATORS, TensorSpec
from tvm_passes.ops.pad import PadConfig

pad = OPERATORS["pad"]


def test_borders_hold_the_value_and_the_inside_is_kept() -> None:
    x = np.arange(12, dtype=np.uint8).reshape(1, 2, 3, 2)
    config = PadConfig((1, 0), (0, 2), 200)
    padded = pad.reference(config, x)
    spec = pad.infer(config, [TensorSpec(x.shape, "uint8")])
    assert (padded.shape, str(padded.dtype)) == (spec.shape, spec.dtype) == ((1, 3, 5, 2), "uint8")
    np.testing.assert_array_equal(padded[:, 1:, :3], x)
    assert np.all(padded[:, 0] == 200) and np.all(padded[:, :, 3:] == 200)
