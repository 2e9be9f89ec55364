"""`split`: two lists that halve a folder of photos."""

from pathlib import Path

from pipeline.data.photos import describe_skipped, scan_photos
from pipeline.data.source import PhotoSource, name_of
from pipeline.data.split import halve
from pipeline.errors import UserError
from pipeline.files.staging import check_writable
from pipeline.progress import Reporter
from pipeline.verbs.result import SplitResult

NAMES = ("a.txt", "b.txt")


def split(photos: PhotoSource, out: Path, reporter: Reporter) -> SplitResult:
    """Write two photo lists that share no photo, with paths relative to the folder of the photos.

    Args:
        photos: folder or list.
        out: folder for the lists; older ones are replaced.
        reporter: hears of it.

    Raises:
        UserError: there are fewer than two different photos, or `out` cannot be written.
    """
    check_writable(out / NAMES[0])
    with reporter.step("read photos"):
        scan = scan_photos(photos, minimum=2)
    found = halve(scan.photos)
    if not found.a:
        raise UserError(f"All photos of {photos} have the same content; there is no half of them.")
    out.mkdir(parents=True, exist_ok=True)
    total = len(found.a) + len(found.b)
    for name, half in zip(NAMES, (found.a, found.b), strict=True):
        lines = [
            f"# {len(half)} of {total} photos, by the SHA-256 of their content; paths begin at "
            "--photos-root",
            *(name_of(path, photos) for path in half),
        ]
        (out / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return SplitResult(
        lists=(out / NAMES[0], out / NAMES[1]),
        photos=(len(found.a), len(found.b)),
        repeated=len(found.repeated),
        skipped=describe_skipped(scan.skipped),
    )
