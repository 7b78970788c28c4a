"""What this installation has and lacks: the rows of ``tokamask doctor``."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass

PACKAGES = {
    "numpy": "arrays",
    "torch": "torch tensors in and out (extra: torch)",
    "gguf": "reads the demo model (extra: demo)",
    "tqdm": "progress bars (extra: demo)",
    "transformers": "LogitsProcessor and drop-in tokenizers",
    "llama-cpp-python": "llama.cpp adapters",
}


@dataclass(frozen=True)
class Finding:
    """One row: ``state`` is ok, missing (an optional part) or broken (something that should work does not)."""

    name: str
    state: str
    text: str


def examine() -> list[Finding]:
    """Looks at the core, the machine, the optional packages, the demo model and the CUDA side.

    Examples
    --------
    >>> [f.state for f in examine() if f.name == "tokamask"]
    ['ok']
    """
    return [*_core(), *_packages(), *_model(), *_cuda()]


def _core() -> Iterator[Finding]:
    from tokamask import __version__, _core

    info = _core.build_info()
    yield Finding("tokamask", "ok", f"{__version__}, core {info['version']} ({info['profile']})")
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.platform()}")
    features = " ".join(info["cpu_features"]) or "none beyond the baseline"
    yield Finding(
        "processor", "ok", f"{platform.machine()}, {os.cpu_count()} threads, SIMD in use: {features}"
    )


def _packages() -> Iterator[Finding]:
    for name, use in PACKAGES.items():
        try:
            yield Finding(name, "ok", f"{importlib.metadata.version(name)}: {use}")
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "missing", use)


def _model() -> Iterator[Finding]:
    from tokamask.demo.model_file import ModelNotFoundError, find_model

    try:
        path = find_model()
        yield Finding("demo model", "ok", f"{path.name}, {path.stat().st_size / 1e6:.0f} MB")
    except ModelNotFoundError as error:
        yield Finding("demo model", "missing", str(error))


def _cuda() -> Iterator[Finding]:
    from tokamask.errors import KernelError
    from tokamask.gpu import manifest, nvrtc

    try:
        yield Finding("kernels", "ok", f"{len(manifest.kernels())} CUDA kernels in the package")
    except (OSError, ValueError) as error:
        yield Finding("kernels", "broken", str(error))
    use = "compiles the kernels ahead of time, no GPU needed"
    try:
        yield Finding("nvrtc", "ok", f"{'.'.join(map(str, nvrtc.version()))}: {use}")
    except KernelError as error:
        yield Finding("nvrtc", "missing", f"{use}: {error}")
    from tokamask.gpu.launch import device_name

    try:
        yield Finding("gpu", "ok", device_name())
    except KernelError as error:
        yield Finding("gpu", "missing", str(error))


if __name__ == "__main__":
    sys.exit(any(finding.state == "broken" for finding in examine()))
