"""Photos are halved by what they show, not by how they are called."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.photos import HashedPath
from pipeline.data.split import halve

contents = st.lists(st.text("0123456789abcdef", min_size=4, max_size=4), max_size=20)


def hashed(digests: list[str]) -> list[HashedPath]:
    return [HashedPath(Path(f"{index:02}.png"), digest) for index, digest in enumerate(digests)]


@given(contents)
def test_halves_share_no_content_and_are_of_equal_size(digests: list[str]) -> None:
    photos = hashed(digests)
    of = {photo.path: photo.sha256 for photo in photos}
    found = halve(photos)
    a, b = ([of[path] for path in half] for half in (found.a, found.b))
    assert set(a).isdisjoint(b)
    assert sorted(a + b) == sorted(set(digests))
    assert len(b) - len(a) in (0, 1)
    assert not a or max(a) < min(b)
    assert sorted([*found.a, *found.b, *found.repeated]) == [photo.path for photo in photos]


@given(contents.flatmap(lambda digests: st.permutations(hashed(digests))))
def test_the_order_of_the_files_does_not_matter(photos: list[HashedPath]) -> None:
    assert halve(photos) == halve(sorted(photos, key=lambda photo: photo.path))


def test_the_first_of_equal_photos_counts() -> None:
    found = halve(hashed(["bb", "aa", "aa"]))
    assert found.a == (Path("01.png"),)
    assert found.b == (Path("00.png"),)
    assert found.repeated == (Path("02.png"),)
