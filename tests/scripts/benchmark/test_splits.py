"""The halves of the benchmark's photos."""

from pathlib import Path

import scripts.benchmark

SPLITS = Path(scripts.benchmark.__file__).parent / "splits"


def lines(name: str) -> list[str]:
    return [line for line in (SPLITS / name).read_text().splitlines() if not line.startswith("#")]


def test_halves_are_of_500_photos_and_apart() -> None:
    a, b = lines("imagenet_like_a.txt"), lines("imagenet_like_b.txt")
    assert len(a) == len(b) == 500
    assert set(a).isdisjoint(b)
    assert all(name.count("/") == 1 and name.endswith(".jpg") for name in a + b)
