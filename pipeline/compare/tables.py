"""Results of cells as rows of tables, in text as people read it and in numbers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from pipeline.compare.cell import CellResult
from pipeline.compare.paired import Difference, mcnemar, sqnr_difference, top1_difference

Value = str | int | float | None

_FIGURES = (
    *("top1", "float_top1", "top1_difference", "top1_low", "top1_high", "agreement", "sqnr_db"),
    *("quantize_seconds", "photos", "calibration_photos"),
)


@dataclass(frozen=True)
class Table:
    """A heading, names of columns and rows.

    Attributes:
        title: of the table.
        columns: names.
        rows: text.
        data: the same rows in numbers: shares, dB, seconds; with columns of their own names.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    data: tuple[dict[str, Value], ...]


def result_table(results: Iterable[CellResult]) -> Table:
    """One row for each cell."""
    found = list(results)
    columns = (
        *("model", "bits", "method", "top-1", "float", "difference, 95 %", "agreement", "SQNR"),
        *("quantized in", "seed", "photos", "level", "error"),
    )
    return Table(
        "Methods against float",
        columns,
        tuple(_row(result) for result in found),
        tuple(_data(result) for result in found),
    )


def paired_table(results: Iterable[CellResult], seed: int) -> Table:
    """Every method against the first one of the same model and bits, on the same photos.

    Args:
        results: in the order of the sweep; failed ones are left out.
        seed: of the resampling.
    """
    rows: list[tuple[str, ...]] = []
    data: list[dict[str, Value]] = []
    done = [result for result in results if result.figures is not None]
    for (model, bits), group in groupby(done, lambda result: (result.model, result.bits)):
        first, *others = group
        for other in others:
            if (pair := _paired(other, first, seed)) is None:
                continue
            top1, test, sqnr = pair
            heading = (model, bits, other.method, first.method)
            rows.append(
                (*heading, _points(top1), f"{top1.p:.3g}", f"{test:.3g}")
                + (f"{sqnr.value:+.2f} dB [{sqnr.low:+.2f}, {sqnr.high:+.2f}]", f"{sqnr.p:.3g}")
            )
            data.append(
                dict(zip(("model", "bits", "method", "against"), heading, strict=True))
                | _numbers("top1", top1)
                | {"mcnemar_p": test}
                | _numbers("sqnr_db", sqnr)
            )
    columns = (
        *("model", "bits", "method", "against", "top-1, 95 %", "p", "McNemar p"),
        *("SQNR, 95 %", "p of SQNR"),
    )
    return Table("Methods against the first one", columns, tuple(rows), tuple(data))


def _paired(
    ours: CellResult, theirs: CellResult, seed: int
) -> tuple[Difference, float, Difference] | None:
    """Differences of top-1 and SQNR and McNemar's test; None where the photos differ."""
    a, b = ours.figures, theirs.figures
    assert a is not None and b is not None
    if a.photos_sha256 != b.photos_sha256:
        return None
    return (
        top1_difference(a.hits, b.hits, seed),
        mcnemar(a.hits, b.hits),
        sqnr_difference(a.energies, b.energies, seed),
    )


def _row(result: CellResult) -> tuple[str, ...]:
    heading = (result.model, result.bits or "-", result.method)
    found = result.figures
    if found is None:
        return (*heading, *[""] * 6, str(result.seed), "", result.level, result.error or "")
    low, high = (value if value is not None else float("nan") for value in _interval(result))
    return (
        *heading,
        f"{found.top1:.2%}",
        f"{found.float_top1:.2%}",
        _points(Difference(found.top1_difference, low, high, 1.0)),
        f"{found.agreement:.2%}",
        "equal" if found.sqnr_db is None else f"{found.sqnr_db:.1f} dB",
        f"{found.quantize_seconds:.1f} s",
        str(result.seed),
        str(found.photos),
        result.level,
        "",
    )


def _interval(result: CellResult) -> Sequence[float | None]:
    assert result.figures is not None
    return result.figures.top1_low, result.figures.top1_high


def _data(result: CellResult) -> dict[str, Value]:
    figures = result.figures
    left_out = {"labels", "predictions", "noise", "photos_sha256"}
    empty = dict.fromkeys(_FIGURES)
    known = figures.model_dump(exclude=left_out) if figures else empty
    identity = result.model_dump(exclude={"figures", "error"})
    return identity | {key: known[key] for key in _FIGURES} | {"error": result.error}


def _points(found: Difference) -> str:
    """A difference of shares in percentage points."""
    value, low, high = (100 * number for number in (found.value, found.low, found.high))
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"


def _numbers(name: str, found: Difference) -> dict[str, Value]:
    return {
        f"{name}_difference": found.value,
        f"{name}_low": found.low,
        f"{name}_high": found.high,
        f"{name}_p": found.p,
    }
