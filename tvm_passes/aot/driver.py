"""The generated C source: network description, and the kernel calls in order."""

import json
import re
from dataclasses import dataclass
from importlib.resources import files

import jinja2
import numpy as np

from tvm_passes.aot.plan import ALIGNMENT, MemoryPlan
from tvm_passes.aot.program import Layer, Program, used_kernels
from tvm_passes.aot.targets import TargetSpec
from tvm_passes.errors import LoweringError

# ARM feature -> which word of the auxiliary vector, which bit (Linux, asm/hwcap.h).
HWCAPS = {"asimdrdm": ("AT_HWCAP", 12), "asimddp": ("AT_HWCAP", 20), "i8mm": ("AT_HWCAP2", 13)}


@dataclass(frozen=True)
class LibraryInfo:
    """What a library says about itself.

    Attributes:
        name: of the model; letters, digits, "_", "-" and ".".
        logits_scale: real logit per integer logit, positive.
    """

    name: str
    logits_scale: float

    def __post_init__(self) -> None:
        """Refuse what could not stand in a file name or would turn the ranking around."""
        if not re.fullmatch(r"[\w.-]+", self.name, re.ASCII):
            raise LoweringError(f"Model name {self.name!r} may hold only letters, digits and _-.")
        if not (np.isfinite(self.logits_scale) and self.logits_scale > 0):
            raise LoweringError(f"logits_scale is {self.logits_scale}; it must be positive.")


@dataclass(frozen=True)
class Params:
    """All constants in one blob.

    Attributes:
        blob: the bytes; every constant starts at a multiple of 64.
        offsets: bytes, one per constant of the program.
    """

    blob: bytes
    offsets: tuple[int, ...]


def pack_params(program: Program) -> Params:
    """Lay the program's constants one after the other."""
    blob, offsets = bytearray(), []
    for constant in program.constants:
        offsets.append(len(blob))
        blob += constant.tobytes()
        blob += bytes(-len(blob) % ALIGNMENT)
    return Params(bytes(blob), tuple(offsets))


def kernel_symbols(program: Program) -> dict[str, str]:
    """C symbol of each kernel: neutral names, so that no Relax name must be a C identifier."""
    return {name: f"kernel_{index}" for index, name in enumerate(used_kernels(program.layers))}


def render_driver(
    program: Program,
    plan: MemoryPlan,
    params: Params,
    info: LibraryInfo,
    target: TargetSpec,
    parallel: bool,
) -> str:
    """The C source of the driver; ``parallel`` says whether kernels have parallel loops."""
    symbols = kernel_symbols(program)

    def place(index: int) -> tuple[str, int]:
        tensor = program.tensors[index]
        offsets = plan.offsets if tensor.space == "arena" else params.offsets
        return tensor.space, offsets[tensor.buffer]

    def call(layer: Layer) -> str:
        arguments = (f"{space} + {offset}" for space, offset in map(place, layer.args))
        return f"{symbols[layer.kernel]}({', '.join(arguments)})"

    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["c_string"] = json.dumps  # names are ASCII identifiers
    template = files("tvm_passes.aot").joinpath("templates", "driver.c.j2").read_text()
    return environment.from_string(template).render(
        info=info,
        target=target,
        layers=[{"name": layer.name, "call": call(layer)} for layer in program.layers],
        kernels={symbols[layer.kernel]: len(layer.args) - 1 for layer in program.layers},
        image=program.tensors[program.image].spec,
        logits=program.tensors[program.logits].spec,
        image_offset=place(program.image)[1],
        logits_offset=place(program.logits)[1],
        parallel=int(parallel),
        logits_scale=float(np.float32(info.logits_scale)).hex(),
        arena_bytes=plan.arena_bytes,
        parameter_bytes=len(params.blob),
        hwcaps=HWCAPS,
    )
