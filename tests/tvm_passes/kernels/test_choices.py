"""Schedules by workload: chosen by a file, checked, and the same for every calibration."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from tvm_passes.errors import LoweringError
from tvm_passes.kernels import choices
from tvm_passes.kernels.choices import Choices, read_choices
from tvm_passes.kernels.isa import ISAS
from tvm_passes.kernels.registry import KERNELS
from tvm_passes.ops.base import TensorSpec
from tvm_passes.ops.gemm import LinearConfig

CONFIG = LinearConfig(0, 3, -128, 127, "int8")
SPECS = (
    TensorSpec((8, 64), "int8"),
    TensorSpec((32, 64), "int8"),
    TensorSpec((1, 32), "int32"),
    TensorSpec((32,), "int32"),
)
ISA = ISAS["neon-dotprod"]


def workload(config: LinearConfig = CONFIG) -> str:
    return choices.workload("linear", config, SPECS)


def test_a_workload_does_not_depend_on_the_quantizers() -> None:
    assert workload() == workload(LinearConfig(1, -7, -100, 100, "int8"))
    assert workload() != workload(LinearConfig(0, 3, -128, 127, "int16"))


def test_without_a_choice_the_first_schedule_is_taken() -> None:
    space = KERNELS["linear"].schedules(CONFIG, SPECS, ISA)
    assert Choices(ISA.name).schedule("linear", CONFIG, SPECS, ISA) == space[0]


def test_a_file_chooses(tmp_path: Path) -> None:
    wanted = KERNELS["linear"].schedules(CONFIG, SPECS, ISA)[5]
    Choices(ISA.name, {workload(): asdict(wanted)}).save(tmp_path / "kernels.json")
    read = read_choices(tmp_path / "kernels.json")
    assert read.schedule("linear", CONFIG, SPECS, ISA) == wanted
    assert read.schedule("linear", CONFIG, SPECS, ISAS["neon"]) != wanted


def test_a_schedule_outside_of_the_space_is_refused() -> None:
    asked = Choices(ISA.name, {workload(): {"rows": 99, "vectors": 4, "block": 1, "unroll": 1}})
    with pytest.raises(LoweringError, match="no schedule .*99.* on neon-dotprod"):
        asked.schedule("linear", CONFIG, SPECS, ISA)


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "{}", '{"isa": "mips", "kernels": {}}', '{"isa": "neon", "kernels": 3}'),
        *('{"isa": "neon", "kernels": {"a": 1}}', '{"isa": "neon", "kernels": {}, "apart": 3}'),
    ],
)
def test_what_is_no_configuration_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(LoweringError, match="no kernel configuration"):
        read_choices(tmp_path / "bad.json")


def test_every_space_is_plain_data() -> None:
    for schedule in KERNELS["linear"].schedules(CONFIG, SPECS, ISA):
        assert json.loads(json.dumps(asdict(schedule))) == asdict(schedule)
