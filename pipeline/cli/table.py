"""Results as short plain tables on standard output."""

import math
import sys
from collections.abc import Iterable, Sequence
from functools import singledispatch
from typing import Any

import typer

from pipeline.cli.columns import with_heading
from pipeline.device import Measurement
from pipeline.sensitivity.result import SensitivityResult
from pipeline.verbs.result import (
    Accuracy,
    BuildResult,
    BuiltFile,
    CompareResult,
    Comparison,
    DeployResult,
    MeasureResult,
    QuantizeResult,
    SplitResult,
    problems,
    to_json,
)
from tvm_passes.graph.data_movement import Movement, Moves

Row = tuple[str, str]


def show(result: Any, json: bool) -> None:
    """Print a result, as JSON or as a table.

    Raises:
        typer.Exit: status 1 when logits differ that should be equal, or cells failed.
    """
    print(to_json(result) if json else table(result))
    found = problems(result)
    for problem in found:
        print(f"pocketvit: {problem}", file=sys.stderr)
    if found:
        raise typer.Exit(1)


@singledispatch
def table(result: Any) -> str:
    """A heading, and rows of two columns, or of as many as the result has."""
    heading, rows = describe(result)
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join([heading, *(f"  {name:<{width}}{value}" for name, value in rows)])


@table.register
def _compare(result: CompareResult) -> str:
    files = "\n".join(f"  {path}" for path in result.files)
    return f"{with_heading(result.columns, result.rows)}\n{files}"


@table.register
def _sensitivity(result: SensitivityResult) -> str:
    whole = result.quantized
    heading = (
        f"{result.model}, {result.recipe}, {result.photos} photos: logits {whole.sqnr_db:.1f} dB, "
        f"same top class on {_percent(whole.agreement)}, top-1 {_percent(whole.top1)} "
        f"(float {_percent(result.float_top1)})"
    )
    columns = ("layer", "operator", "output", "logits, alone", "same class", "gain if in float")
    rows = [
        (
            found.layer.module_path,
            found.layer.operator,
            _decibels(found.local_sqnr_db),
            _decibels(found.effects.alone.sqnr_db),
            _percent(found.effects.alone.agreement),
            _decibels(found.effects.spared.sqnr_db - whole.sqnr_db, sign="+"),
        )
        for found in result.layers
    ]
    files = "\n".join(f"  {path}" for path in result.files)
    return f"{heading}\n{with_heading(columns, rows)}\n{files}"


@singledispatch
def describe(result: Any) -> tuple[str, list[Row]]:
    """Heading and rows of a result."""
    raise TypeError(type(result))


@describe.register
def _deploy(result: DeployResult) -> tuple[str, list[Row]]:
    heading = f"{result.model}, {result.recipe}, {result.accuracy.photos} validation photos"
    check = result.reference
    equal = check.photos - check.differing
    return heading, [
        *_accuracy(result.accuracy),
        ("library = NumPy reference", f"{equal} of {check.photos} photos bit-identical"),
        *_measurements(result.measurements),
        ("data movement", _movement(result.movement)),
        *_libraries(result.libraries),
        ("artifact", str(result.artifact)),
    ]


@describe.register
def _quantize(result: QuantizeResult) -> tuple[str, list[Row]]:
    rows = [(str(line["role"]), f"{line['format']} ({line['tensors']})") for line in result.formats]
    if result.accuracy is not None:
        rows += _accuracy(result.accuracy)
    return f"{result.model}, {result.recipe}", [*rows, ("quantized model", str(result.quantized))]


@describe.register
def _build(result: BuildResult) -> tuple[str, list[Row]]:
    return f"{result.model}, {result.recipe}", [
        ("data movement", _movement(result.movement)),
        *_libraries(result.libraries),
        ("artifact", str(result.artifact)),
    ]


@describe.register
def _measure(result: MeasureResult) -> tuple[str, list[Row]]:
    rows = list(_measurements(result.measurements, accuracy=True))
    return f"{result.model}, {result.recipe}", rows


@describe.register
def _split(result: SplitResult) -> tuple[str, list[Row]]:
    rows = [
        (str(path), f"{count} photos")
        for path, count in zip(result.lists, result.photos, strict=True)
    ]
    return f"{sum(result.photos)} photos, {result.repeated} repeated, {result.skipped}", rows


def _accuracy(found: Accuracy) -> list[Row]:
    rows = [
        ("top-1, float", _percent(found.float_top1)),
        ("top-1, simulated", _percent(found.simulated_top1)),
    ]
    if found.integer_top1 is not None:
        rows.append(("top-1, integer", _percent(found.integer_top1)))
    pairs = {
        "simulated vs float": found.simulated_vs_float,
        "integer vs float": found.integer_vs_float,
        "integer vs simulated": found.integer_vs_simulated,
    }
    rows += [(f"logits, {name}", _comparison(pair)) for name, pair in pairs.items() if pair]
    return rows


def _comparison(pair: Comparison) -> str:
    return f"{pair.sqnr_db:.1f} dB, same top class on {_percent(pair.agreement)}"


def _measurements(measurements: Sequence[Measurement], accuracy: bool = False) -> Iterable[Row]:
    for measured in measurements:
        name = measured.device
        if measured.latency is not None:
            time, threads = measured.latency, measured.threads
            yield (
                f"latency, {name}",
                f"{time.median_ms:.2f} ms (p10 {time.p10_ms:.2f}, p90 {time.p90_ms:.2f}, "
                f"{time.runs} runs, {threads} thread{'s' if threads > 1 else ''})",
            )
        if measured.cost is not None:
            cost = measured.cost
            yield f"instructions, {name}", _instructions(cost.instructions, cost.by_class)
            if cost.estimated_cycles:
                yield f"cycles, {name}", f"estimated {_cycles(cost.estimated_cycles)}"
        if accuracy and measured.top1 is not None:
            yield f"top-1, {name}", f"{_percent(measured.top1)} of {measured.labelled} photos"
        if measured.differing_images is not None:
            equal = measured.images - measured.differing_images
            yield f"{name} = host", f"{equal} of {measured.images} images bit-identical"
        for note in measured.notes:
            yield f"note, {name}", note


def _instructions(total: float, by_class: dict[str, float]) -> str:
    largest = sorted(by_class.items(), key=lambda item: -item[1])[:3]
    shares = ", ".join(f"{name} {count / total:.0%}" for name, count in largest)
    return f"{total / 1e6:.2f} M" + (f" ({shares})" if shares else "")


def _cycles(by_core: dict[str, float]) -> str:
    return ", ".join(f"{cycles / 1e6:.1f} M ({core})" for core, cycles in by_core.items())


def _movement(found: Movement) -> str:
    before, after = found.before, found.after
    return (
        f"{before.operators} operators ({_megabytes(before)}) before layout, "
        f"{after.operators} ({_megabytes(after)}) after"
    )


def _megabytes(moves: Moves) -> str:
    return f"{moves.written_bytes / 1e6:.2f} MB"


def _libraries(libraries: Sequence[BuiltFile]) -> Iterable[Row]:
    for library in libraries:
        size, arena = library.file_bytes / 1e6, library.arena_bytes / 1e6
        yield f"library, {library.target}", f"{size:.2f} MB, {arena:.2f} MB working memory"


def _decibels(value: float, sign: str = "") -> str:
    return f"{value:{sign}.1f} dB" if math.isfinite(value) else "equal"


def _percent(share: float) -> str:
    return f"{share:.2%}"
