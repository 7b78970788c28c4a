"""Where the tests find data that is too large for the repository, and how long they search for counterexamples."""

import os
import pathlib
import shutil
import tarfile
import tempfile

# Test workers share the cores: BLAS threads that wait for each other on busy cores make a matrix product 20x slower.
# Before numpy is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
from hypothesis import settings

ROOT = pathlib.Path(__file__).resolve().parent.parent

settings.register_profile("default", deadline=None, max_examples=60)
settings.register_profile("thorough", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("TOKAMASK_HYPOTHESIS", "default"))


def shared_folder() -> pathlib.Path | None:
    """The folder of large corpora and traces, beside the repository, or None."""
    places = [os.environ.get("TOKAMASK_SHARED"), ROOT.parent / "shared", ROOT.parent.parent / "shared"]
    return next((pathlib.Path(p) for p in places if p and (pathlib.Path(p) / "data").is_dir()), None)


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """Skips, saying so, where the large data is absent."""
    folder = shared_folder()
    if folder is None:
        pytest.skip("large test data is absent (a folder `shared` beside the repository, or TOKAMASK_SHARED)")
    return folder / "data"


@pytest.fixture(scope="session")
def unpacked(shared_data, tmp_path_factory):
    """Unpacks an archive of the large data once per machine: ``unpacked("grammars.tar.xz")`` is its folder."""

    def unpack(archive: str) -> pathlib.Path:
        source = shared_data / archive
        if not source.exists():
            pytest.skip(f"large test data is absent: {archive}")
        stamp = f"{source.stat().st_size}-{int(source.stat().st_mtime)}"
        target = pathlib.Path(tempfile.gettempdir()) / "tokamask-test-data" / f"{archive}-{stamp}"
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            scratch = tempfile.mkdtemp(dir=target.parent)
            with tarfile.open(source) as tar:
                tar.extractall(scratch, filter="data")
            try:
                os.rename(scratch, target)
            except OSError:  # another worker was faster
                shutil.rmtree(scratch)
        return target

    return unpack


@pytest.fixture(scope="session")
def smollm2_gguf() -> pathlib.Path:
    """The demo model's file."""
    from tokamask.demo.model_file import ModelNotFoundError, find_model

    try:
        return find_model()
    except ModelNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def engine(smollm2_gguf):
    """The demo model, loaded once; a test that reads a prompt starts it anew."""
    from tokamask.demo import Engine

    return Engine.load(smollm2_gguf, progress=False)
