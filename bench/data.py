"""Where the benchmarks find input that is too large for the repository, and where they put what they derive."""

import os
import pathlib
import shutil
import tarfile
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent


def shared_folder() -> pathlib.Path | None:
    """The folder of large corpora and traces, beside the repository, or None."""
    places = [os.environ.get("TOKAMASK_SHARED"), ROOT.parent / "shared", ROOT.parent.parent / "shared"]
    return next((pathlib.Path(p) for p in places if p and (pathlib.Path(p) / "data").is_dir()), None)


def scratch() -> pathlib.Path:
    """A folder that outlives one run, for unpacked archives and derived files."""
    folder = pathlib.Path(tempfile.gettempdir()) / "tokamask-test-data"
    folder.mkdir(exist_ok=True)
    return folder


def unpacked(archive: str) -> pathlib.Path | None:
    """The folder of an unpacked archive of the large data; None where the data is absent."""
    shared = shared_folder()
    if shared is None or not (shared / "data" / archive).exists():
        return None
    source = shared / "data" / archive
    stamp = f"{source.stat().st_size}-{int(source.stat().st_mtime)}"
    target = scratch() / f"{archive}-{stamp}"
    if not target.exists():
        part = tempfile.mkdtemp(dir=target.parent)
        with tarfile.open(source) as tar:
            tar.extractall(part, filter="data")
        try:
            os.rename(part, target)
        except OSError:  # another process was faster
            shutil.rmtree(part)
    return target


def cached(name: str, make) -> pathlib.Path:
    """The file ``name`` in the scratch folder, written by ``make(path)`` if it is not there yet."""
    path = scratch() / name
    if not path.exists():
        part = path.with_name(f"{name}.{os.getpid()}")
        make(part)
        part.replace(path)
    return path
