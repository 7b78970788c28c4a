"""Builds the suffix trees of arctic-inference into this environment: ``python bench/rivals/build_arctic_inference.py``.

Its own build wants torch, a CUDA toolchain and grpc for parts that the comparison does not use. The suffix trees are two C++ files
and three Python ones, which are taken from its source distribution and compiled with the flags of its release build.
Needs a C++20 compiler (``$CXX``, else c++) and pip's index. Exit code 1 with the reason where something is missing.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile

VERSION, NANOBIND = "0.3.0", "2.9.2"


def pip(*arguments, **environment):
    """Runs pip of this environment."""
    command = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", *map(str, arguments)]
    subprocess.run(command, check=True, env={**os.environ, **environment})


def fetch(folder):
    """The unpacked source distribution."""
    # pip asks a source distribution for its metadata, and this one's setup.py imports torch without using it for that.
    (folder / "stub").mkdir()
    (folder / "stub" / "torch.py").touch()
    pip("install", "--target", folder / "build", "setuptools", "wheel", f"nanobind=={NANOBIND}")
    path = os.pathsep.join([str(folder / "stub"), str(folder / "build")])
    options = ("--no-deps", "--no-build-isolation", "--no-binary", ":all:", "-d", folder)
    pip("download", *options, f"arctic-inference=={VERSION}", PYTHONPATH=path)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as tar:
        tar.extractall(folder, filter="data")
    return folder / f"arctic_inference-{VERSION}"


def compile_trees(source, nanobind, target):
    """Its C++ with nanobind's, as one extension module."""
    csrc = source / "csrc" / "suffix_decoding"
    files = [csrc / "bindings.cc", csrc / "suffix_tree.cc", nanobind / "src" / "nb_combined.cpp"]
    folders = [nanobind / "include", nanobind / "ext/robin_map/include", sysconfig.get_path("include")]
    flags = ["-O3", "-DNDEBUG", "-std=c++20", "-shared", "-fPIC", "-fvisibility=hidden"]
    if sys.platform == "darwin":
        flags += ["-undefined", "dynamic_lookup"]
    command = [
        os.environ.get("CXX", "c++"),
        *flags,
        *(f"-I{folder}" for folder in folders),
        *files,
        "-o",
        target,
    ]
    subprocess.run(list(map(str, command)), check=True)


def main() -> int:
    """The command."""
    if not shutil.which(os.environ.get("CXX", "c++")):
        print("arctic-inference: not built, no C++ compiler found (set $CXX)", file=sys.stderr)
        return 1
    site = pathlib.Path(sysconfig.get_path("purelib"))
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        try:
            source = fetch(folder)
            package = source / "arctic_inference"
            module = f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
            compile_trees(source, folder / "build" / "nanobind", package / "suffix_decoding" / module)
        except subprocess.CalledProcessError as error:
            print(f"arctic-inference: not built, {error.cmd[0]} failed", file=sys.stderr)
            return 1
        target = site / "arctic_inference"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        shutil.copy(package / "__init__.py", target)
        shutil.copytree(package / "suffix_decoding", target / "suffix_decoding")
        record = site / f"arctic_inference-{VERSION}.dist-info"
        record.mkdir(exist_ok=True)
        shutil.copy(source / "PKG-INFO", record / "METADATA")
        shutil.copy(source / "LICENSE", record)
    subprocess.run([sys.executable, "-c", "import arctic_inference.suffix_decoding"], check=True)
    print(f"arctic-inference {VERSION}: its suffix trees are in {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
