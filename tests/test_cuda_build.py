"""Every kernel compiles for every architecture with NVRTC, without a GPU, within the committed budget.

Every architecture is tried, each with another corner of the kernel's variants; ``make kernels-proof`` takes the whole product. Results are kept in the temporary folder by content.
"""

import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import pickle
import subprocess
import sys
import tempfile

import pytest
from emulator import CUDA, SANITIZER, launch

from tokamask.errors import KernelError
from tokamask.gpu import build, nvrtc, proof, sass
from tokamask.gpu.manifest import ARCHITECTURES, SHARED_LIMIT, flatten, kernels, source_folder

pytestmark = pytest.mark.skipif(bool(SANITIZER), reason="compiles nothing for the emulator")


def kept(make, kernel, variant, arch):
    """What a function of pickles says of a compiled variant, kept in the temporary folder by content."""
    key = repr((make.__name__, kernel, flatten(kernel.file), nvrtc.options(variant), arch, nvrtc.version()))
    path = (
        pathlib.Path(tempfile.gettempdir()) / "tokamask-nvrtc" / hashlib.sha256(key.encode()).hexdigest()[:24]
    )
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}")
        scratch.write_bytes(pickle.dumps(make(kernel, variant, arch)))
        os.replace(scratch, path)
    return pickle.loads(path.read_bytes())


def usage_of(kernel, variant, arch) -> dict[str, nvrtc.Usage]:
    return nvrtc.compile_kernel(kernel, variant, arch).usage


def findings_of(kernel, variant, arch) -> list[proof.Finding]:
    return proof.prove(kernel, variant, arch)


def cases():
    for kernel in kernels().values():
        archs = [a for a in ARCHITECTURES if int(a[3:]) >= kernel.minimum_arch]
        for variant, arch in zip(itertools.cycle(proof.ends(kernel)), archs, strict=False):
            yield pytest.param(
                kernel, variant, arch, id="-".join([kernel.name, *(v for _, v in variant), arch])
            )


@pytest.mark.parametrize(("kernel", "variant", "arch"), list(cases()))
def test_compiles_within_its_budget(kernel, variant, arch):
    usage = kept(usage_of, kernel, variant, arch)
    assert set(usage) == {e.name for e in kernel.entries}
    for entry in kernel.entries:
        used = usage[entry.name]
        assert build.keeps_budget(entry, used), f"{used} exceeds {entry}"
        assert used.shared <= SHARED_LIMIT
        assert build.occupancy(arch, entry.block(dict(variant)), used.registers, used.shared) > 0


WIDE = [k for k in kernels().values() if any(e.wide_loads for e in k.entries)]


@pytest.mark.skipif(
    sass.disassembler() is None, reason="nvdisasm is missing: pip install nvidia-cuda-nvdisasm"
)
@pytest.mark.parametrize("kernel", WIDE, ids=lambda k: k.name)
def test_memory_bound_kernels_load_16_bytes_at_a_time(kernel):
    """In the machine code of one variant; ``make kernels-proof`` looks at others on every architecture."""
    findings = kept(findings_of, kernel, proof.ends(kernel)[-1], "sm_80")
    assert [f.faults for f in findings] == [()] * len(kernel.entries)
    assert all(
        f.wide_loads >= e.wide_loads for f, e in zip(findings, kernel.entries, strict=True) if e.wide_loads
    )


def test_accesses_are_read_from_the_disassembly():
    text = """
	.section	.text.first,"ax",@progbits
        /*0010*/                   LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ;
        /*0020*/                   LDG.E.U16.SYS R4, [R2] ;
        /*0030*/                   LDGSTS.E.BYPASS.128.ZFILL [R4], desc[UR4][R2.64] ;
	.section	.text.second,"ax",@progbits
        /*0010*/                   STL [R1], R4 ;
        /*0020*/                   STG.E desc[UR4][R2.64], R4 ;
"""
    assert sass.read_accesses(text) == {
        "first": {"LDG.128": 1, "LDG.U16": 1, "LDGSTS.128": 1},
        "second": {"STL.32": 1, "STG.32": 1},
    }


def test_the_proof_names_every_kind_of_fault():
    kernel = kernels()["decode"]
    entry, variant = kernel.entries[0], kernel.variants()[0]
    good = nvrtc.Usage(registers=60, spills=0, shared=528, stack=0)
    assert proof.judge(entry, variant, "sm_90", good, entry.wide_loads).faults == ()
    for usage, loads in (
        (dataclasses.replace(good, registers=200), 9),
        (dataclasses.replace(good, spills=4), 9),
        (dataclasses.replace(good, shared=50_000), 9),
        (good, entry.wide_loads - 1),
    ):
        assert proof.judge(entry, variant, "sm_90", usage, loads).faults
    rows = proof.summarise([proof.judge(entry, variant, "sm_90", good, 9)])
    assert proof.differences(proof.table(rows), rows) == []
    assert proof.differences(proof.table([(*rows[0][:3], "61", *rows[0][4:])]), rows) != []
    assert proof.differences(proof.table([]), rows) != []
    assert proof.differences("# NVRTC 12.0: another compiler's table", rows) == []


def test_the_committed_table_names_every_entry_on_every_architecture():
    """What it says of them, ``make kernels-proof`` checks."""
    rows = proof.read_table((CUDA / proof.TABLE).read_text())
    listed = {
        (e.name, a, str(len(k.variants())))
        for k in kernels().values()
        for e in k.entries
        for a in ARCHITECTURES
        if int(a[3:]) >= k.minimum_arch
    }
    assert {row[:3] for row in rows} == listed


def test_every_source_is_in_the_manifest():
    assert {p.stem for p in CUDA.glob("*.cu")} == set(kernels())
    installed = {p.relative_to(source_folder()): p.read_bytes() for p in source_folder().rglob("*.cu*")}
    assert installed == {p.relative_to(CUDA): p.read_bytes() for p in CUDA.rglob("*.cu*")}


def test_no_host_header_and_no_inline_ptx_outside_the_wrappers():
    for path in [*CUDA.glob("*.cu"), *CUDA.glob("tokamask/*.cuh")]:
        text = path.read_text()
        includes = [line for line in text.splitlines() if line.startswith("#include")]
        assert all('"' in line or line == "#include <cstdint>" for line in includes), path
        assert "asm" not in text or path.name in ("base.cuh", "element.cuh", "tensor.cuh"), path


def test_a_variant_that_is_not_listed_is_refused():
    with pytest.raises(KernelError, match="GROUP=17"):
        nvrtc.compile_kernel(
            kernels()["decode"], (("ELEMENT", "f32"), ("HEAD_DIM", "64"), ("GROUP", "17")), "sm_80"
        )


def test_a_source_that_does_not_compile_gives_its_log():
    with pytest.raises(KernelError) as caught:
        nvrtc.compile_source('extern "C" __global__ void k(int* p) { *p = nothing; }', "k", [], "sm_80")
    assert "nothing" in caught.value.log


def test_command_writes_cubins_and_json(tmp_path):
    command = [
        sys.executable,
        "-m",
        "tokamask.gpu.build",
        "--arch",
        "sm_75,sm_90",
        "--out",
        str(tmp_path),
        "--json",
    ]
    done = subprocess.run(
        [*command, "--kernel", "top_k", "--define", "ELEMENT=bf16"],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = json.loads(done.stdout)
    assert [(r["arch"], r["defines"], r["spills"]) for r in rows] == [
        ("sm_75", {"ELEMENT": "bf16"}, 0),
        ("sm_90", {"ELEMENT": "bf16"}, 0),
    ]
    assert {p.name for p in tmp_path.iterdir()} == {r["file"] for r in rows}
    assert all((tmp_path / r["file"]).read_bytes().startswith(b"\x7fELF") for r in rows)


def test_command_refuses_what_does_not_exist(tmp_path):
    assert build.main(["--arch", "sm_10", "--out", str(tmp_path)]) == 2
    with pytest.raises(SystemExit, match="no kernel"):
        build.main(["--kernel", "nothing", "--out", str(tmp_path)])


def test_importing_needs_neither_cupy_nor_torch():
    code = "import sys, tokamask.gpu, tokamask.gpu.build; assert not {'cupy', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_emulator_checks_argument_types():
    with pytest.raises(TypeError, match="arguments for"):
        launch(CUDA / "top_k.cu", "top_k", ("ELEMENT=f32",), (1,), 512, [])
