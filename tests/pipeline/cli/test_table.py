"""What the tables say of a result."""

from pathlib import Path

import pytest

from pipeline.cli.table import table
from pipeline.verbs.result import Accuracy, BuildResult, Comparison, DeployResult, ReferenceCheck
from tvm_passes.graph.data_movement import Movement, Moves

MOVEMENT = Movement(before=Moves(136, 4_198_348), after=Moves(16, 195_852))
ACCURACY = Accuracy(1, "", {}, 1.0, 1.0, Comparison(30.0, 1.0))
RESULTS = (
    BuildResult("vit", "w8a8", MOVEMENT, (), Path("out")),
    DeployResult("vit", "w8a8", (), ACCURACY, ReferenceCheck(1, 0), (), MOVEMENT, (), Path("out")),
)


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: type(result).__name__)
def test_what_is_built_tells_how_much_data_layouts_spared(result):
    (row,) = (line for line in table(result).splitlines() if line.startswith("  data movement "))
    assert row.endswith(" 136 operators (4.20 MB) before layout, 16 (0.20 MB) after")
