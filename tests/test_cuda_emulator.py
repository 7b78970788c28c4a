"""The emulator catches what it says it catches: kernels that are wrong on purpose, and our kernels without a barrier.

Whatever is caught ends the process, so each case runs in one of its own. The default run takes a few of the mutants; all
of them, and every kernel test under every sanitizer and schedule, run with ``make kernels-thorough``.
"""

import functools
import os
import pathlib
import subprocess
import sys

import pytest
from emulator import BARRIER, CUDA, SANITIZER, preload

from tokamask.gpu.manifest import flatten, kernels

pytestmark = pytest.mark.skipif(bool(SANITIZER), reason="this file starts the sanitized processes itself")
TESTS = pathlib.Path(__file__).parent
THOROUGH = bool(os.environ.get("EMULATOR_THOROUGH"))
thorough = pytest.mark.skipif(not THOROUGH, reason="make kernels-thorough")

PLANTED = """
import sys
import numpy as np
from emulator import HERE, launch
out = np.arange(64, dtype=np.int32)
launch(HERE / "planted.cu", sys.argv[1], (), (int(sys.argv[2]),), 64, [out], shared_bytes=256)
print(*out)
"""


@functools.cache
def planted(
    name: str, sanitizer: str = "", schedule: str = "forward", blocks: int = 1
) -> subprocess.CompletedProcess:
    environment = {
        **os.environ,
        **preload(sanitizer),
        "EMULATOR_SCHEDULE": schedule,
        "PYTHONPATH": str(TESTS),
    }
    command = [sys.executable, "-c", PLANTED, name, str(blocks)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("divergent_barrier", "barrier divergence"),
        ("lane_left", "deadlock"),
        ("lane_outside_mask", "not in mask"),
        ("thread_left", "deadlock"),
    ],
)
def test_checks_that_are_always_on(name, message):
    done = planted(name)
    assert done.returncode != 0
    assert message in done.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("out_of_bounds", "heap-buffer-overflow"),
        ("shared_out_of_bounds", "insufficient space for an object"),
        ("dynamic_out_of_bounds", "heap-buffer-overflow"),
        ("signed_overflow", "signed integer overflow"),
        ("misaligned_load", "misaligned address"),
    ],
)
def test_address_and_undefined_behaviour_sanitizers(name, message):
    done = planted(name, "asan")
    assert done.returncode != 0
    assert message in done.stderr
    assert "planted.cu" in done.stderr  # with the line of the kernel


@pytest.mark.parametrize("name", ["missing_syncwarp", "missing_syncthreads"])
def test_thread_sanitizer(name):
    done = planted(name, "tsan")
    assert done.returncode == 66
    assert "data race" in done.stderr
    assert "planted.cu" in done.stderr


def test_thread_sanitizer_accepts_the_mended_kernel():
    done = planted("with_syncwarp", "tsan")
    assert (done.returncode, done.stdout.split()) == (0, [str(i ^ 1) for i in range(64)]), done.stderr


def test_values_show_what_no_check_sees():
    assert planted("shared_never_written").stdout.split()[7] == "-1"
    assert (
        planted("copy_used_before_its_wait").stdout.split()[0] == "-1"
    )  # shared memory as it was before the copy


def test_schedules_show_an_order_of_blocks():
    counts = {
        s: int(planted("blocks_in_order", schedule=s, blocks=4).stdout.split()[0])
        for s in ("forward", "reverse")
    }
    assert counts == {"forward": 4, "reverse": 1}


def run_kernel_tests(
    files: list[str],
    *,
    sanitizer: str = "",
    schedule: str = "forward",
    mutant: str = "",
    tests: str = "test",
    options=(),
):
    environment = {
        **os.environ,
        **preload(sanitizer),
        "EMULATOR_SCHEDULE": schedule,
        "EMULATOR_MUTANT": mutant,
        "EMULATOR_THOROUGH": "" if mutant else os.environ.get("EMULATOR_THOROUGH", ""),
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-k",
        f"({tests}) and not rust and not gpu",
        "-p",
        "no:xdist",
        *options,
        *files,
    ]
    return subprocess.run(
        command, env=environment, cwd=TESTS.parent, capture_output=True, text=True, check=False, timeout=2400
    )


KERNEL_TESTS = {
    "top_k": "test_cuda_top_k.py",
    "sample": "test_cuda_sample.py",
    "apply_bitmask": "test_cuda_sample.py",
    "decode": "test_cuda_attention.py",
    "sparse_decode": "test_cuda_attention.py",
    "decode_mma": "test_cuda_attention.py",
    "sparse_decode_mma": "test_cuda_attention.py",
    "merge_states": "test_cuda_attention.py",
    "tree_decode": "test_cuda_tree.py",
    "tree_decode_mma": "test_cuda_tree.py",
    "verify_tree": "test_cuda_tree.py",
    "verify_sampled": "test_cuda_tree.py",
    "token_scores": "test_cuda_selection.py",
    "soft_vote": "test_cuda_selection.py",
    "join_selection": "test_cuda_selection.py",
    "quest": "test_cuda_selection.py",
    "indexer_scores": "test_cuda_indexer.py",
    "indexer_scores_mma": "test_cuda_indexer.py",
    "hisa": "test_cuda_indexer.py",
    "take": "test_cuda_indexer.py",
    "fasa_query": "test_cuda_selection.py",
    "unmask": "test_cuda_reduction.py",
    "greedy_select": "test_cuda_reduction.py",
    "tome_merge": "test_cuda_reduction.py",
    "lightning": "test_cuda_reduction.py",
    "penalise": "test_cuda_sample.py",
    "append_kv": "test_cuda_append.py",
    "prefill": "test_cuda_prefill.py",
    "prefill_mma": "test_cuda_prefill.py",
    "column_sums": "test_cuda_prefill.py",
    "window_scores": "test_cuda_prefill.py",
    "token_sparse": "test_cuda_prefill.py",
}

# What of its file tries a kernel's barriers, where the rest would cost time alone.
BARRIER_TESTS = {
    "verify_sampled": "verify_sampled or running_sum",
    "token_scores": "token_select",
    "soft_vote": "token_select or votes",
    "quest": "quest",
    "fasa_query": "fasa",
    "unmask": "unmask",
    "greedy_select": "greedy_select",
    "tome_merge": "tome_merge",
    "lightning": "lightning",
    "penalise": "penalties",
    "column_sums": "column_sums",
    "window_scores": "scores_of_a_window",
    "token_sparse": "feeds_sparse_attention",
}

# The kernel whose tests must notice when a barrier of a header is missing; other kernels that include it may not use it.
HEADER_KERNELS = {
    "tokamask/attention.cuh": "sparse_decode",
    "tokamask/block.cuh": "top_k",
    "tokamask/radix.cuh": "top_k",
    "tokamask/sampling.cuh": "sample",
    "tokamask/tensor_attention.cuh": "sparse_decode_mma",
}


def origins(kernel: str) -> list[str]:
    """The file that each barrier of a flat source comes from."""
    found, file = [], ""
    for line in flatten(kernels()[kernel].file, CUDA).splitlines():
        if line.startswith("#line"):
            file = line.split('"')[1]
        found += [file] * len(BARRIER.findall(line))
    return found


def mutants() -> list[tuple[str, int]]:
    return [
        (name, n)
        for name in KERNEL_TESTS
        for n, file in enumerate(origins(name))
        if HEADER_KERNELS.get(file, name) == name
    ]


DEFAULT_MUTANTS = {("top_k", 3), ("sparse_decode", 2)}


@pytest.mark.parametrize(
    ("kernel", "n"), [m if m in DEFAULT_MUTANTS else pytest.param(*m, marks=thorough) for m in mutants()]
)
def test_no_barrier_can_be_left_out(kernel, n):
    file, tests = f"tests/{KERNEL_TESTS[kernel]}", BARRIER_TESTS.get(kernel, "test")
    options = ("-m", "sanitized")
    done = run_kernel_tests([file], sanitizer="tsan", mutant=f"{kernel}:{n}", tests=tests, options=options)
    assert "g++ refuses" not in done.stdout
    caught = done.returncode in (1, 66) or done.returncode < 0  # a value, the sanitizer, a signal
    assert caught, f"{kernel} passes its tests without barrier {n}: {done.stdout[-500:]}"


# One bug each of a kind that no missing barrier stands for; all kernels without barriers of their own have one.
PLANTED_BUGS = {
    "a page too far": (
        "decode",
        "page_table[token / page_size]) *",
        "page_table[(token + 1) / page_size]) *",
    ),
    "offsets of 32 bits": (
        *("decode_mma", "int64_t(page_table[token / page_size]) * page_stride"),
        "int(uint32_t(page_table[token / page_size]) * uint32_t(page_stride))",
    ),
    "splits that overlap": (
        *("decode", "begin = min(split * share, length)", "begin = max(min(split * share, length) - 1, 0)"),
    ),
    "the token behind the last": ("sparse_decode", "token < length ? token", "token <= length ? token"),
    "a token beyond the length": ("sparse_decode_mma", "token >= 0 && token < length", "token >= 0"),
    "a part left out": ("merge_states", "p < parts; ++p) sum +=", "p < parts - 1; ++p) sum +="),
    "padding sees the prefix": ("tree_decode", "length = padding ? 0 : seq_lens", "length = seq_lens"),
    "a mask of another node": (
        "tree_decode_mma",
        "min(first_row + (lane_index() >> 2) + 8,",
        "min(first_row + (lane_index() >> 2),",
    ),
    "a child in the tile of its parent": ("verify_tree", "start = (node + 1) / 32 * 32", "start += 32"),
    "a page begun with what lay there": (
        "append_kv",
        "float sum = row == 0 ? 0.f : index_sums",
        "float sum = index_sums",
    ),
    "one key too few": ("hisa", "token <= last ? token", "token < last ? token"),
    "candidates of another row": ("take", "? candidates[row * count + at]", "? candidates[at]"),
    "the newest token twice": (
        "join_selection",
        "else token = length - width + i;",
        "else token = length - width + i - 1;",
    ),
    "a logit behind the row": ("apply_bitmask", "token < vocab_size) store", "token <= vocab_size) store"),
    "causality": ("prefill", "token < tokens && token <= last", "token < tokens && token < last"),
    "causality on tensor cores": (
        "prefill_mma",
        "return position <= first + r;",
        "return position < first + r;",
    ),
    "one query too many": (
        "column_sums",
        "if (token > tokens - queries + i) continue;",
        "if (token > tokens - queries + i + 1) continue;",
    ),
    "ties by the highest index": ("top_k", "ties_before < ties_left", "ties_before > ties_left"),
    "rows behind the end of a page": ("quest", "t < filled; ++t", "t < page_size; ++t"),
    "the least instead of the most": (
        "token_sparse",
        "ordered_key(mean[t]) < key",
        "ordered_key(mean[t]) <= key",
    ),
}
PLANTED_FILES = {"offsets of 32 bits": ["test_cuda_large.py"]}
DEFAULT_BUGS = {"offsets of 32 bits", "a page too far"}


@pytest.mark.parametrize(
    "bug", [b if b in DEFAULT_BUGS else pytest.param(b, marks=thorough) for b in PLANTED_BUGS]
)
def test_planted_bugs_are_caught(bug):
    kernel, old, new = PLANTED_BUGS[bug]
    quick = f"test_cuda_variants.py::test_the_first_variant[{kernel}]"
    files = [f"tests/{file}" for file in PLANTED_FILES.get(bug, [quick, KERNEL_TESTS[kernel]])]
    done = run_kernel_tests(files, mutant=f"{kernel}:{old} -> {new}")
    assert "g++ refuses" not in done.stdout
    assert f"{kernel}.cu has" not in done.stdout
    caught = "1 failed" in done.stdout or done.returncode < 0  # by a signal
    assert caught, f"{kernel} passes its tests with a bug: {bug}: {done.stdout[-500:]}"


def test_every_kernel_has_a_planted_bug():
    """A barrier less or another one."""
    own = {name for name, n in mutants() if origins(name)[n] not in HEADER_KERNELS}
    assert own | {kernel for kernel, _, _ in PLANTED_BUGS.values()} == set(kernels())


def test_every_barrier_has_a_kernel_that_tries_it():
    everywhere = {(name, n) for name in KERNEL_TESTS for n in range(len(origins(name)))}
    headers = {file for name, n in everywhere - set(mutants()) for file in [origins(name)[n]]}
    assert headers <= set(HEADER_KERNELS)
    for file, kernel in HEADER_KERNELS.items():
        assert file in origins(kernel), f"{kernel} has no barrier of {file}"


def test_every_kernel_has_its_tests_listed():
    assert set(KERNEL_TESTS) == set(kernels())
    for file in set(KERNEL_TESTS.values()):
        assert "pytest.mark.sanitized" in (TESTS / file).read_text()


@pytest.mark.timeout(1200)
@pytest.mark.skipif(THOROUGH, reason="all their tests run under it")
def test_kernels_under_the_address_sanitizer():
    """One test of each kernel, those marked ``sanitized``; the others in the thorough run."""
    files = sorted(f"tests/{file}" for file in set(KERNEL_TESTS.values()))
    done = run_kernel_tests(files, sanitizer="asan", options=("-m", "sanitized"))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@thorough
@pytest.mark.parametrize("file", sorted(set(KERNEL_TESTS.values())))
@pytest.mark.parametrize(
    ("sanitizer", "schedule"),
    [
        ("asan", "forward"),
        ("tsan", "forward"),
        ("", "reverse"),
        ("", "random:1"),
        ("", "random:2"),
        ("asan", "reverse"),
    ],
)
def test_kernels_under_every_sanitizer_and_schedule(file, sanitizer, schedule):
    options = ("-m", "sanitized") if sanitizer == "tsan" else ()
    done = run_kernel_tests([f"tests/{file}"], sanitizer=sanitizer, schedule=schedule, options=options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


LARGE = [k.name for k in kernels().values() if len(k.variants()) > 16]
PORTIONS = {**{name: [name] for name in LARGE}, "others": [k for k in kernels() if k not in LARGE]}


@thorough
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("portion", PORTIONS)
@pytest.mark.parametrize("sanitizer", ["asan", "tsan"])
def test_every_listed_variant(portion, sanitizer):
    tests = [f"tests/test_cuda_variants.py::test_listed_variants[{kernel}]" for kernel in PORTIONS[portion]]
    done = run_kernel_tests(tests, sanitizer=sanitizer, options=("-s",))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
