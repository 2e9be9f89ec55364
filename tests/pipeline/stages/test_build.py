"""The stage that builds libraries."""

from dataclasses import replace
from pathlib import Path

from pipeline.stages.build import build_stage
from pipeline.stages.integer_module import MODULE, write_module
from pipeline.stages.workspace import Workspace
from tests.tvm_passes.test_pipeline import network
from tvm_passes.aot import TARGETS, bytes_by_bits
from tvm_passes.kernels.choices import read_choices
from tvm_passes.pipeline import lower


def test_every_part_of_a_kernel_configuration_counts(tmp_path: Path) -> None:
    """Neither a schedule nor what is taken apart may be answered from the cache of another."""
    write_module(lower(network()), tmp_path)
    module, workspace = tmp_path / MODULE, Workspace(tmp_path / "cache")
    target = TARGETS["x86-64"]
    plain = build_stage(workspace, "net", module, target)
    assert plain.kernels is not None
    written = read_choices(plain.kernels)
    fused = next(name for name in written.kernels if " + " in name)
    given = build_stage(workspace, "net", module, target, choices=[written])
    apart = build_stage(
        workspace, "net", module, target, choices=[replace(written, apart=(fused,))]
    )
    assert given.report.layers == plain.report.layers
    assert len(apart.report.layers) > len(plain.report.layers)
    assert apart.kernels is not None and read_choices(apart.kernels).apart == (fused,)


def test_the_report_of_a_cached_library_lists_its_weights(tmp_path: Path) -> None:
    write_module(lower(network()), tmp_path)
    module, workspace = tmp_path / MODULE, Workspace(tmp_path / "cache")
    made, cached = (build_stage(workspace, "net", module, TARGETS["x86-64"]) for _ in range(2))
    assert made.report == cached.report
    (nbytes,) = bytes_by_bits(made.report.weights).values()
    assert 0 < nbytes <= made.report.parameter_bytes
