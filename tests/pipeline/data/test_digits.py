"""The demo's digits are split once and for all and written as ordinary photo folders."""

import numpy as np
import pytest

from pipeline.data.digits import draw, split_digits, write_digits
from pipeline.data.labels import label_photos
from pipeline.data.photos import list_photos

pytest.importorskip("sklearn", reason="the demo's digits need scikit-learn")


def test_parts_are_disjoint_and_balanced():
    split = split_digits()
    parts = (split.train, split.calibration, split.validation)
    assert [len(part.labels) for part in parts] == [1185, 198, 414]
    assert sum(len({glyph.tobytes() for glyph in part.glyphs}) for part in parts) == 1797
    assert len({glyph.tobytes() for part in parts for glyph in part.glyphs}) == 1797
    assert all(np.ptp(np.bincount(part.labels)) <= 0.08 * len(part.labels) for part in parts)


def test_split_and_colours_are_the_same_every_time():
    first, second = split_digits().validation, split_digits().validation
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.photos(size=8), second.photos(size=8))
    assert (first.photos(version=1, size=8) != first.photos(size=8)).any()


def test_digit_stands_out_from_its_background():
    glyph = np.zeros((8, 8), np.uint8)
    glyph[2:6, 2:6] = 16
    for seed in range(20):
        photo = draw(glyph, np.random.default_rng(seed), 32).astype(int)
        corner, centre = photo[:4, :4].mean((0, 1)), photo[14:18, 14:18].mean((0, 1))
        assert np.abs(corner - centre).min() > 90


def test_written_folders_hold_the_photos_under_their_labels(tmp_path):
    write_digits(tmp_path, size=16)
    assert len(list_photos(tmp_path / "calibration")) == 198
    labelling = label_photos(tmp_path / "validation", 10)
    labels = sorted(file.label for file in labelling.files)
    assert labels == sorted(split_digits().validation.labels.tolist())
