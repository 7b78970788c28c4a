"""Run by `make dist` inside an environment that holds numpy and tokamask alone: does the package stand by itself?"""

import subprocess
import sys
from importlib import resources
from pathlib import Path

import tokamask as tm

assert "site-packages" in (tm.__file__ or ""), tm.__file__
vocabulary = tm.Vocabulary([bytes([i]) for i in range(256)] + [b"</s>"], special={"</s>": 256}, eos_ids=[256])
matcher = tm.compile(tm.Grammar.json_schema({"type": "boolean"}), vocabulary).matcher()
for byte in b"true":
    matcher.accept(byte)
assert matcher.is_accepting()

kernels = {entry.name for entry in resources.files("tokamask").joinpath("cuda").iterdir()}
assert {"manifest.toml", "top_k.cu", "sparse_decode.cu"} <= kernels, kernels
stray = [
    path.name for path in Path(tm.__file__).parent.parent.iterdir() if path.name in {"cuda", "rust", "tests"}
]
assert not stray, f"stray top-level packages: {stray}"
command = Path(sys.executable).parent / "tokamask"
subprocess.run([command, "--version"], check=True)
subprocess.run([command, "doctor"], check=True, stdout=subprocess.DEVNULL)
