"""Libraries of the smallest network: its logits are the sums of red, green and blue."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tvm import IRModule, relax, te

from pipeline.artifact import Artifact, BuiltLibrary, ModelInfo, write_artifact
from tvm_passes.aot import LibraryInfo, build_library, resolve_target

LABELS = ("red", "green", "blue")
MODEL = ModelInfo(
    name="colours",
    recipe="w8a8",
    input_size=4,
    num_classes=3,
    logits_scale=0.5,
    preprocessing={"input_size": 4, "mean": [0.5, 0.5, 0.5]},
    quantization={"weight": "int8"},
)


def sum_colours(image: te.Tensor) -> te.Tensor:
    """Int32 sums over the pixels."""
    y, x = te.reduce_axis((0, image.shape[1])), te.reduce_axis((0, image.shape[2]))
    return te.compute((1, 3), lambda n, c: te.sum(image[n, y, x, c].astype("int32"), axis=[y, x]))


@pytest.fixture(scope="session")
def network() -> IRModule:
    """The network."""
    builder = relax.BlockBuilder()
    image = relax.Var("image", relax.TensorType((1, 4, 4, 3), "uint8"))
    with builder.function("main", [image]):
        with builder.dataflow():
            logits = builder.emit_output(builder.emit_te(sum_colours, image))
        builder.emit_func_output(logits)
    return builder.get()


@pytest.fixture(scope="session")
def libraries(network: IRModule, tmp_path_factory: pytest.TempPathFactory) -> list[BuiltLibrary]:
    """Its library for this kind of machine and, where a compiler is there, for 64-bit ARM."""
    names = ["x86-64"]
    if shutil.which("aarch64-linux-gnu-gcc"):
        names.append("aarch64-linux")
    built = []
    for name in names:
        path, target = tmp_path_factory.mktemp(name) / "library.so", resolve_target(name)
        info = LibraryInfo(MODEL.name, MODEL.logits_scale)
        built.append(BuiltLibrary(path, target, build_library(network, target, info, path)))
    return built


@pytest.fixture
def write(libraries: list[BuiltLibrary], tmp_path: Path) -> Callable[..., Artifact]:
    """Function that writes the artifact to ``tmp_path / "artifact"``."""

    def write_it(**changes: object) -> Artifact:
        arguments = {"libraries": libraries, "labels": LABELS, "model": MODEL} | changes
        return write_artifact(tmp_path / "artifact", **arguments)  # type: ignore[arg-type]

    return write_it
