"""The cache of finished stages."""

import errno
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.stages.cache import hash_inputs, run_stage


class Producer:
    """Writes one file and counts its calls."""

    def __init__(self, error: BaseException | None = None) -> None:
        """Raise ``error`` after half of the work when given."""
        self.error, self.calls = error, 0

    def __call__(self, folder: Path) -> None:
        """Produce the result."""
        self.calls += 1
        (folder / "half").write_text("1")
        if self.error:
            raise self.error
        (folder / "whole").write_text("2")


def test_a_finished_stage_is_not_run_again(tmp_path: Path) -> None:
    produce = Producer()
    first = run_stage(tmp_path, "quantize", "abc", produce)
    assert run_stage(tmp_path, "quantize", "abc", produce) == first
    assert produce.calls == 1
    assert sorted(path.name for path in first.iterdir()) == ["half", "whole"]


def test_other_inputs_or_another_name_make_another_result(tmp_path: Path) -> None:
    produce = Producer()
    results = {run_stage(tmp_path, "a", "1", produce), run_stage(tmp_path, "a", "2", produce)}
    results.add(run_stage(tmp_path, "b", "1", produce))
    assert len(results) == produce.calls == 3


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("broken")])
def test_an_interrupted_stage_leaves_nothing_and_runs_again(
    error: BaseException, tmp_path: Path
) -> None:
    with pytest.raises(type(error)):
        run_stage(tmp_path, "quantize", "abc", Producer(error))
    assert list(tmp_path.iterdir()) == []
    assert (run_stage(tmp_path, "quantize", "abc", Producer()) / "whole").exists()


def test_a_full_disk_is_a_user_error(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(UserError, match="No space left on device"):
        run_stage(tmp_path, "quantize", "abc", Producer(full))


def test_a_cache_that_is_a_file_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(UserError, match="cannot be written"):
        run_stage(tmp_path / "cache", "quantize", "abc", Producer())


def test_when_two_runs_race_the_first_result_stays(tmp_path: Path) -> None:
    def slow(folder: Path) -> None:
        run_stage(tmp_path, "quantize", "abc", Producer())  # the other one finishes first
        (folder / "late").touch()

    result = run_stage(tmp_path, "quantize", "abc", slow)
    assert sorted(path.name for path in result.iterdir()) == ["half", "whole"]
    assert list(tmp_path.iterdir()) == [result]


def test_inputs_hash_follows_values_and_contents_but_not_paths(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("same")
    two.write_text("same")
    base = hash_inputs({"bits": 8, "model": "x"}, [one])
    assert base == hash_inputs({"model": "x", "bits": 8}, [two])
    assert base != hash_inputs({"model": "x", "bits": 4}, [one])
    two.write_text("other")
    assert base != hash_inputs({"bits": 8, "model": "x"}, [two])
