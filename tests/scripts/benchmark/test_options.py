"""Bad input gets one clear sentence."""

import os
from pathlib import Path

import pytest

from pipeline.errors import UserError
from scripts.benchmark.arm import choose
from scripts.benchmark.environments import Cache, python_of
from scripts.benchmark.host import choose_cores
from scripts.benchmark.options import find_peers, one_sentence
from scripts.benchmark.peers import PEERS


def test_all_peers_unless_some_are_named() -> None:
    assert [peer.name for peer in find_peers([])] == list(PEERS)
    assert find_peers(["litert"]) == [PEERS["litert"]]


def test_an_unknown_peer_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UserError, match="no peer 'tensorrt'; there are: .*onnxruntime"):
        find_peers(["tensorrt"])


def test_a_peer_that_is_not_set_up_says_how(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"python -m scripts\.benchmark\.setup openvino"):
        python_of(Cache(tmp_path), PEERS["openvino"])


def test_only_what_runs_on_a_device_can_be_counted() -> None:
    litert = PEERS["litert"]
    assert choose([litert, PEERS["openvino"]], ["int8"]) == [(litert, "int8")]
    with pytest.raises(UserError, match="there are: litert float32, litert int8"):
        choose([litert], ["int4"])
    with pytest.raises(UserError, match="No such contestant"):
        choose([PEERS["openvino"]], [])


def test_cores() -> None:
    allowed = sorted(os.sched_getaffinity(0))
    assert choose_cores("", 1) == allowed[-1:]
    assert choose_cores(str(allowed[0]), 1) == allowed[:1]
    for text, threads in (("", 4096), ("99999", 1), ("one", 1)):
        with pytest.raises(UserError, match="ores"):
            choose_cores(text, threads)


def test_an_error_ends_with_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        with one_sentence():
            raise UserError("[this] is wrong")
    assert ended.value.code == 1
    assert "benchmark: [this] is wrong" in capsys.readouterr().err


def test_every_peer_has_what_its_kind_needs() -> None:
    for name, peer in PEERS.items():
        assert name == peer.name and peer.variants
        assert bool(peer.device_packages) <= bool(peer.device_variants)
