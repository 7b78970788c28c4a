"""Every kernel compiles for every architecture with NVRTC, without a GPU, within the committed budget.

The default run takes every architecture, each with another corner of the kernel's variants;
``make kernels-thorough`` takes the whole product. Results are kept in the temporary folder by content.
"""

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
from tokamask.gpu import build, nvrtc
from tokamask.gpu.manifest import ARCHITECTURES, SHARED_LIMIT, flatten, kernels, source_folder

pytestmark = pytest.mark.skipif(bool(SANITIZER), reason="compiles nothing for the emulator")


def usage_of(kernel, variant, arch) -> dict[str, nvrtc.Usage]:
    key = repr((flatten(kernel.file), nvrtc.options(variant), arch, nvrtc.version()))
    path = (
        pathlib.Path(tempfile.gettempdir()) / "tokamask-nvrtc" / hashlib.sha256(key.encode()).hexdigest()[:24]
    )
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}")
        scratch.write_bytes(pickle.dumps(nvrtc.compile_kernel(kernel, variant, arch).usage))
        os.replace(scratch, path)
    return pickle.loads(path.read_bytes())


def corners(kernel):
    ends = [dict.fromkeys((values[0], values[-1])) for _, values in kernel.axes]
    return [
        tuple(zip((n for n, _ in kernel.axes), values, strict=True)) for values in itertools.product(*ends)
    ]


def cases():
    for kernel in kernels().values():
        archs = [a for a in ARCHITECTURES if int(a[3:]) >= kernel.minimum_arch]
        if os.environ.get("EMULATOR_THOROUGH"):
            chosen = itertools.product(kernel.variants(), archs)
        else:
            chosen = list(zip(itertools.cycle(corners(kernel)), archs, strict=False))
        for variant, arch in chosen:
            yield pytest.param(
                kernel, variant, arch, id="-".join([kernel.name, *(v for _, v in variant), arch])
            )


@pytest.mark.parametrize(("kernel", "variant", "arch"), list(cases()))
def test_compiles_within_its_budget(kernel, variant, arch):
    usage = usage_of(kernel, variant, arch)
    assert set(usage) == {e.name for e in kernel.entries}
    for entry in kernel.entries:
        used = usage[entry.name]
        assert build.keeps_budget(entry, used), f"{used} exceeds {entry}"
        assert used.shared <= SHARED_LIMIT
        assert build.occupancy(arch, entry.block(dict(variant)), used.registers, used.shared) > 0


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
