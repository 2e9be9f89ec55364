"""Kernels of the pointwise functions equal their references over every input."""

import numpy as np
import pytest

import tvm_passes.kernels.pointwise  # noqa: F401, registers the kernels
from tests.tvm_passes.run_kernel import ARM_ISAS, HOST_ISAS, Call, check_all, codes
from tvm_passes.ops.adalog import adalog_quantize_config
from tvm_passes.ops.pointwise import LutConfig, adalog_table
from tvm_passes.ops.pwl import pwl_tables
from tvm_passes.ops.pwl8 import pwl8_tables
from tvm_passes.ops.twin import twin_config

ALL_INT16 = np.arange(-32768, 32768).astype(np.int16)
ALL_INT8 = np.arange(-128, 128).astype(np.int8)


def calls() -> list[Call]:
    result: list[Call] = []
    for source in ("int8", "uint8"):
        for target in ("int8", "uint8", "int16"):
            x = [codes(source, 3, 99), np.arange(256).astype(source)]
            result += [("lut", LutConfig(target), [item, codes(target, 256)]) for item in x]
    table, _ = adalog_table(1, 2, 4)
    result.append(("lut", LutConfig("int16"), [np.arange(256).astype(np.uint8), table]))
    every = codes("int32", 65536)  # a table with an entry per int16 code
    result.append(("lut", LutConfig("int32"), [ALL_INT16[32700:32777], every]))
    for function, limit, dtype in [
        ("silu", 20.0, "int8"),
        ("silu", 40.0, "int16"),
        ("hardsigmoid", 10.0, "int8"),
        ("gelu", 0.5, "int8"),
    ]:
        output = (limit / 32767, 0, -32767, 32767)
        if dtype == "int8":
            output = (limit / 255, -100, -128, 127)
        tables = pwl_tables(function, limit / 32767, *output, dtype)
        for x in (ALL_INT16.reshape(2, -1), ALL_INT16[:77]):
            result.append(("pwl", tables.config, [x, tables.slope, tables.base]))
    for function, limit, low, high in [
        ("silu", 20.0, -0.28, 20.0),
        ("gelu", 0.5, -0.17, 0.35),
        ("sigmoid", 100.0, 0.0, 1.0),
        ("hardsigmoid", 10.0, 0.0, 1.0),  # 128 segments
    ]:
        step = (high - low) / 255
        for qmax in (127, 90):
            output = (step, round(-128 - low / step), -128, qmax)
            lines = pwl8_tables(function, limit / 32767, *output, "int8")
            for x in (ALL_INT16.reshape(2, -1), ALL_INT16[30000:30077]):
                result.append(("pwl8", lines.config, [x, lines.slope, lines.base]))
    output = (10.0 / 255, 0, 0, 255)
    lines = pwl8_tables("silu", 10.0 / 32767, *output, "uint8")
    result.append(("pwl8", lines.config, [ALL_INT16, lines.slope, lines.base]))
    for q, r, bits, shift in [
        (19, 37, 4, 0.17),
        (1, 2, 8, 0.0),
        (1, 1, 4, 0.17),
        (137, 37, 3, 0.17),
    ]:
        config = adalog_quantize_config(5 / 32767, 0, 4.3, q, r, bits, shift)
        result.append(("adalog_quantize", config, [ALL_INT16]))
        config = adalog_quantize_config(5 / 255, -100, 4.3, q, r, bits, shift)
        result.append(("adalog_quantize", config, [ALL_INT8[:251].reshape(1, 251)]))
    for ratio, m, bits in [(0.3, 6, 8), (2.0**-8, 8, 8), (40.0, 3, 4), (1e-4, 0, 2)]:
        for signed in (False, True):
            config = twin_config(ratio, 1.0, m, bits, signed)
            result += [("twin", config, [x]) for x in (ALL_INT16, ALL_INT16[32700:32777])]
    return result


@pytest.mark.parametrize("isa", HOST_ISAS + ARM_ISAS)
def test_kernels_equal_their_references(isa: str) -> None:
    check_all(calls(), isa)
