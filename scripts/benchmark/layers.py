"""Where our library's time goes: every layer with its products and its share of the peak."""

import ctypes
import os
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from pipeline.errors import UserError
from pipeline.stages.integer_module import read_module
from scripts.benchmark.environments import Cache
from scripts.benchmark.export import export
from scripts.benchmark.host import choose_cores
from scripts.benchmark.layer_report import LayerRow, kind_of, kind_table, layer_table
from scripts.benchmark.macs import OperatorWork, count_operators
from scripts.benchmark.options import (
    DEFAULT_CACHE,
    CacheOption,
    JsonOption,
    PhotosOption,
    console,
    run,
)
from scripts.benchmark.ours import build
from scripts.benchmark.report import write_json


def main(
    network: Annotated[str, typer.Argument(help="timm model.")],
    recipe: Annotated[str, typer.Option(help="Name or path of a recipe.")] = "w8a8",
    runs: Annotated[int, typer.Option(help="Profiled inferences.", min=1)] = 100,
    top: Annotated[int, typer.Option(help="Layers to print; 0 prints all.")] = 40,
    photos: PhotosOption = None,
    cache: CacheOption = DEFAULT_CACHE,
    json: JsonOption = None,
) -> None:
    """Profile our library for this machine, slowest layers first."""
    with console.status(f"{network}: build"):
        source = export(network, Cache(cache).sources, photos)
        ours = build(source, f"int8 {recipe}", "host")
    with console.status(f"{network}: count multiply-accumulates"):
        work = count_operators(read_module(ours.module))
    os.sched_setaffinity(0, choose_cores("", 1))
    times = profile(ours.library.path, source.pixels()[:1], runs)
    matched = match_layers([name for name, _ in times], work)
    rows = [
        LayerRow(name, microseconds, each.macs if each else None, each.shape if each else None)
        for (name, microseconds), each in zip(times, matched, strict=True)
    ]
    rows.sort(key=lambda row: -row.microseconds)
    console.print(kind_table(network, rows), layer_table(rows, top or len(rows)))
    if json:
        write_json(json, "layers", {"network": network, "recipe": recipe}, rows)


def profile(library: Path, image: np.ndarray, runs: int) -> list[tuple[str, float]]:
    """Layers in order with their median microseconds.

    Raises:
        UserError: the library does not run.
    """
    interface = ctypes.CDLL(str(library))
    interface.pocketvit_layer_name.restype = ctypes.c_char_p
    interface.pocketvit_status_text.restype = ctypes.c_char_p
    names: list[str] = []
    while name := interface.pocketvit_layer_name(len(names)):
        names.append(name.decode())
    pixels = np.ascontiguousarray(image)
    logits = np.empty(1 << 16, np.int32)
    nanoseconds = np.zeros((runs + 1, len(names)), np.uint64)
    handle = ctypes.c_void_p()
    one_thread = ctypes.c_int32(1)  # all of pocketvit_options
    status = interface.pocketvit_create(ctypes.byref(one_thread), ctypes.byref(handle))
    for row in nanoseconds:
        status = status or interface.pocketvit_profile(
            handle, *(ctypes.c_void_p(array.ctypes.data) for array in (pixels, logits, row))
        )
    interface.pocketvit_destroy(handle)
    if status:
        raise UserError(f"{library} failed: {interface.pocketvit_status_text(status).decode()}.")
    medians = np.median(nanoseconds[1:], axis=0) / 1e3
    return list(zip(names, medians.tolist(), strict=True))


def match_layers(names: Sequence[str], work: Sequence[OperatorWork]) -> list[OperatorWork | None]:
    """The operator of each layer.

    A layer is called like its operator, with a number; both are in the same order. What has another
    name, such as a view that copies, is a layer without an operator.
    """
    stems = [kind_of(name) for name in names]
    known = {each.operator for each in work}
    places = [place for place, stem in enumerate(stems) if stem in known]
    # without the others both are equal, unless something was fused that keeps a name
    layers, operators = [stems[place] for place in places], [each.operator for each in work]
    matched: list[OperatorWork | None] = [None] * len(names)
    for layer, operator, length in SequenceMatcher(
        None, layers, operators, autojunk=False
    ).get_matching_blocks():
        for step in range(length):
            matched[places[layer + step]] = work[operator + step]
    return matched


if __name__ == "__main__":
    run(main)
