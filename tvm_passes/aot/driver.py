"""The generated C source: tensor table, network description, and the kernel calls in order."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import jinja2
import numpy as np
from tvm import DataType

from tvm_passes.aot.plan import ALIGNMENT, MemoryPlan
from tvm_passes.aot.program import Program, used_kernels
from tvm_passes.aot.targets import TargetSpec
from tvm_passes.errors import LoweringError

MAX_ARGUMENTS = 32  # PV_MAX_ARGUMENTS of runtime/network.h

# ARM feature -> which word of the auxiliary vector, which bit (Linux, asm/hwcap.h).
HWCAPS = {"asimddp": ("AT_HWCAP", 20), "i8mm": ("AT_HWCAP2", 13)}


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
    program: Program, plan: MemoryPlan, params: Params, info: LibraryInfo, target: TargetSpec
) -> str:
    """The C source of the driver.

    Raises:
        LoweringError: a kernel takes too many arguments.
    """
    for layer in program.layers:
        if len(layer.args) > MAX_ARGUMENTS:
            count = len(layer.args)
            raise LoweringError(f"{layer.name} has {count} arguments; {MAX_ARGUMENTS} is the most")
    shapes: list[int] = []
    tensors = []
    for tensor in program.tensors:
        dtype = DataType(tensor.spec.dtype)
        in_arena = tensor.space == "arena"
        offsets = plan.offsets if in_arena else params.offsets
        tensors.append(
            {
                "in_arena": int(in_arena),
                "offset": offsets[tensor.buffer],
                "ndim": len(tensor.spec.shape),
                "code": int(dtype.type_code),
                "bits": dtype.bits,
                "shape": _position(shapes, tensor.spec.shape),
            }
        )
    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["c_string"] = json.dumps  # names are ASCII identifiers
    template = files("tvm_passes.aot").joinpath("templates", "driver.c.j2").read_text()
    return environment.from_string(template).render(
        info=info,
        target=target,
        layers=program.layers,
        kernels=kernel_symbols(program),
        shapes=shapes,
        tensors=tensors,
        image=program.tensors[program.image].spec.shape,
        image_index=program.image,
        logits_index=program.logits,
        num_classes=program.tensors[program.logits].spec.shape[1],
        logits_scale=float(np.float32(info.logits_scale)).hex(),
        arena_bytes=plan.arena_bytes,
        parameter_bytes=len(params.blob),
        hwcaps=HWCAPS,
    )


def _position(pool: list[int], shape: Sequence[int]) -> int:
    """Index of ``shape`` within ``pool``, which grows where it is new."""
    wanted = list(shape)
    for start in range(len(pool) - len(wanted) + 1):
        if pool[start : start + len(wanted)] == wanted:
            return start
    pool.extend(wanted)
    return len(pool) - len(wanted)
