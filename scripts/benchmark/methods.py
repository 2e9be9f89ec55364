"""Comparisons put together into the tables of docs/methods.md.

Reads folders that `pocketvit compare` wrote, each under the name of an experiment. Cells of one
experiment with the same method and bits that were validated on different photos, such as the two
halves of a data set, become one row.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from pipeline.compare.cell import CellResult, Figures
from pipeline.compare.paired import mcnemar, sqnr_difference, top1_difference
from pipeline.compare.store import CELLS
from pipeline.errors import UserError

MARKED = re.compile(r"(<!-- figures: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
DOCS = Path(__file__).parents[2] / "docs" / "methods.md"

Key = tuple[str, str, str]
"""Experiment, bits, method."""


@dataclass(frozen=True)
class Pooled:
    """Figures of a method over all photos that it was validated on.

    Attributes:
        parts: figures by the hash of their photos, in the order of the hashes.
    """

    parts: tuple[Figures, ...]

    @property
    def photos(self) -> int:
        """How many there are."""
        return sum(part.photos for part in self.parts)

    def mean(self, name: str) -> float:
        """Mean over photos of a share."""
        return sum(part.photos * float(getattr(part, name)) for part in self.parts) / self.photos

    @property
    def sqnr_db(self) -> float:
        """Of all logits together."""
        noise = sum(sum(part.noise) for part in self.parts)
        signal = sum(sum(part.noise) * 10 ** ((part.sqnr_db or 0) / 10) for part in self.parts)
        return 10 * math.log10(signal / noise) if noise else math.inf

    @property
    def seconds(self) -> float:
        """The longest quantization."""
        return max(part.quantize_seconds for part in self.parts)


def read_cells(folder: Path) -> list[CellResult]:
    """All results below a folder of `pocketvit compare`."""
    files = sorted((folder / CELLS).glob("*.json"))
    return [CellResult.model_validate_json(path.read_text(encoding="utf-8")) for path in files]


def pool(results: Iterable[tuple[str, CellResult]]) -> dict[Key, Pooled]:
    """Results, each with its experiment, by what they are of; those that failed are left out.

    Raises:
        UserError: two results of an experiment have the same method, bits and photos.
    """
    found: dict[Key, dict[str, Figures]] = defaultdict(dict)
    for experiment, result in results:
        if result.figures is not None:
            key = (experiment, result.bits, result.method)
            if result.figures.photos_sha256 in found[key]:
                raise UserError(
                    f"Experiment {experiment} has two results of {result.method} {result.bits} on "
                    "the same photos, of other code, models, levels or seeds; name their folders "
                    "differently or remove one."
                )
            found[key][result.figures.photos_sha256] = result.figures
    return {
        key: Pooled(tuple(parts[photos] for photos in sorted(parts)))
        for key, parts in found.items()
    }


def figures_table(experiment: str, bits: Sequence[str], pooled: Mapping[Key, Pooled]) -> str:
    """Every method of an experiment at some numbers of bits, the closest to float first."""
    lines = ["| bits | method | photos | top-1 | minus float | agreement | logit SQNR | time |"]
    lines.append("|---|---|---:|---:|---:|---:|---:|---:|")
    for width in bits:
        here = {k[2]: v for k, v in pooled.items() if k[:2] == (experiment, width)}
        for method, found in sorted(here.items(), key=lambda item: -item[1].sqnr_db):
            lines.append(
                f"| {width.upper()} | `{method}` | {found.photos} | {found.mean('top1'):.1%} "
                f"| {100 * found.mean('top1_difference'):+.1f} | {found.mean('agreement'):.1%} "
                f"| {found.sqnr_db:.1f} dB | {found.seconds:.0f} s |"
            )
    return "\n".join(lines) + "\n"


def claims_table(claims: Sequence[tuple[str, str, str, str]], pooled: Mapping[Key, Pooled]) -> str:
    """Whether one method is better than another: `(experiment, bits, better, worse)` each.

    Raises:
        UserError: two were not validated on any photos in common.
    """
    lines = ["| bits | better | than | photos | top-1, 95 % | p | McNemar p | SQNR, 95 % | p |"]
    lines.append("|---|---|---|---:|---:|---:|---:|---:|---:|")
    for experiment, bits, better, worse in claims:
        a, b = (pooled[experiment, bits, method] for method in (better, worse))
        shared = {p.photos_sha256 for p in a.parts} & {p.photos_sha256 for p in b.parts}
        if not shared:
            raise UserError(
                f"{better} and {worse} share no photos in {experiment}; validate both on the same."
            )
        both = [[part for part in x.parts if part.photos_sha256 in shared] for x in (a, b)]
        hits = [np.concatenate([part.hits for part in parts]) for parts in both]
        noise = [np.concatenate([part.energies for part in parts]) for parts in both]
        top1, sqnr = top1_difference(*hits), sqnr_difference(*noise)
        lines.append(
            f"| {bits.upper()} | `{better}` | `{worse}` | {len(hits[0])} "
            f"| {100 * top1.value:+.1f} [{100 * top1.low:+.1f}, {100 * top1.high:+.1f}] "
            f"| {top1.p:.2g} | {mcnemar(*hits):.2g} "
            f"| {sqnr.value:+.1f} dB [{sqnr.low:+.1f}, {sqnr.high:+.1f}] | {sqnr.p:.2g} |"
        )
    return "\n".join(lines) + "\n"


def filled(text: str, pooled: Mapping[Key, Pooled]) -> str:
    """A page with all its tables written anew.

    A table stands behind `<!-- figures: EXPERIMENT BITS... -->`, or
    `<!-- figures: EXPERIMENT BITS: BETTER > WORSE, ... -->` with a claim for each pair, and ends at
    `<!-- end -->`. Tables of which nothing is known stay as they are.
    """

    def table(match: re.Match[str]) -> str:
        wanted, _, pairs = match[2].partition(": ")
        experiment, *bits = wanted.split()
        claims = []
        for pair in pairs.split(", ") if pairs else ():
            better, worse = pair.split(" > ")
            claims.append((experiment, bits[0], better, worse))
        needed = {(experiment, width, method) for _, width, *both in claims for method in both}
        if not needed <= pooled.keys() or experiment not in {key[0] for key in pooled}:
            return match[0]  # what is not known anew stays
        if claims:
            return match[1] + claims_table(claims, pooled) + match[3]
        return match[1] + figures_table(experiment, bits, pooled) + match[3]

    return MARKED.sub(table, text)


def main(
    experiments: Annotated[
        list[str],
        typer.Argument(metavar="NAME=FOLDER", help="What `pocketvit compare --out` wrote."),
    ],
    page: Annotated[Path, typer.Option(help="The page whose tables are written.")] = DOCS,
) -> None:
    """Write the tables of a page from comparisons."""
    for one in experiments:
        if "=" not in one:
            raise typer.BadParameter(f"{one} names no folder; write NAME=FOLDER.")
    named = [one.partition("=")[::2] for one in experiments]
    pooled = pool((name, cell) for name, folder in named for cell in read_cells(Path(folder)))
    page.write_text(filled(page.read_text(encoding="utf-8"), pooled), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
