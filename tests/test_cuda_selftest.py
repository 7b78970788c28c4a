"""The self-test's own logic, on the emulator with a clock of paper: it passes what is right, names what is wrong, and says when there is no card."""

import json
import os

import numpy as np
import pytest
from cuda_engines import gpu_present
from emulator import SANITIZER, EmulatedDevice

from tokamask.gpu import attention, selftest
from tokamask.gpu.manifest import kernels

pytestmark = pytest.mark.skipif(bool(SANITIZER), reason="the kernels' own tests run sanitized")


class PaperBoard:
    """The emulator as a card that copies 1 TB/s and takes 50 us for everything."""

    def __init__(self):
        self.device, self.timed = EmulatedDevice(), 0

    def upload(self, array):
        return array.copy()

    def download(self, array):
        return array

    def seconds(self, run):
        self.timed += 1
        return 50e-6

    def bandwidth(self):
        return 1e12


# Kernels whose variants other tests compile anyway; the rest takes g++ a minute.
QUICK = ["merge_states", "append_kv", "sample", "apply_bitmask", "greedy_select", "unmask", "verify_tree"]


@pytest.mark.parametrize("name", selftest.JOBS if os.environ.get("EMULATOR_THOROUGH") else QUICK)
def test_every_job_is_right_on_the_emulator(name, capsys):
    assert selftest.main(["--check-only", "--kernel", name], PaperBoard()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(selftest.JOBS[name][1])
    assert all(" right " in line for line in lines)


def test_the_jobs_launch_every_function_of_every_kernel():
    launched = set()

    class Notes(EmulatedDevice):
        def launch(self, kernel, entry, *rest) -> None:
            launched.add(entry)

    board = PaperBoard()
    board.device = Notes()
    for make, variants in selftest.JOBS.values():
        for variant in variants:
            make(selftest.Inputs(board, large=False), *variant).run()
    assert launched == {e.name for k in kernels().values() for e in k.entries}


def test_times_become_rates_and_shares(monkeypatch, capsys):
    monkeypatch.setattr(
        selftest.Inputs, "pick", lambda self, small, large: small
    )  # the emulator takes its time
    board = PaperBoard()
    assert selftest.main(["--kernel", "merge_states", "--json"], board) == 0
    rows = json.loads(capsys.readouterr().out)
    assert board.timed == len(rows) == 2
    moved = 2 * 8 * 4 * 128 * 4 * 9 // 8 + 2 * 8 * 4 * 4  # eight parts read, one written, and their weights
    assert (rows[0]["bytes"], rows[0]["seconds"]) == (moved, 50e-6)
    assert rows[0]["share"] == pytest.approx(moved / 50e-6 / 1e12)
    selftest.main(["--kernel", "merge_states"], board)
    assert "us" in capsys.readouterr().out


def test_a_wrong_result_is_named_and_not_timed(monkeypatch, capsys):
    right = attention.merge_states
    monkeypatch.setattr(
        attention, "merge_states", lambda device, v, lse: (right(device, v, lse)[0] * 1.01, None)
    )
    board = PaperBoard()
    assert selftest.main(["--kernel", "merge_states"], board) == 1
    told = capsys.readouterr()
    assert "WRONG" in told.out
    assert "merge_states" in told.err
    assert board.timed < 2


def test_wrong_integers_and_nan_are_wrong():
    board = PaperBoard()
    a = np.array([1, 2], np.int32)
    assert selftest.difference(a, a, "i32", board) == (True, 0)
    assert selftest.difference(a, a[::-1], "i32", board) == (False, 2)
    assert selftest.difference(a[:1], a, "i32", board) == (False, 2)
    x = np.array([1, np.inf], np.float32)
    assert selftest.difference(x, x, "f32", board)[0]
    assert not selftest.difference(np.array([np.nan, np.inf], np.float32), x, "f32", board)[0]


@pytest.mark.skipif(gpu_present(), reason="there is a card")
def test_without_a_card_it_says_so(capsys):
    assert selftest.main([]) == selftest.NO_DEVICE
    assert "Nothing was tested" in capsys.readouterr().err


def test_unknown_kernels_are_refused(capsys):
    with pytest.raises(SystemExit):
        selftest.main(["--kernel", "nothing"], PaperBoard())
    assert "there are decode" in capsys.readouterr().err
