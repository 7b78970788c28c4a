"""Tokenizer files by the name of a model: in a folder, or on the hub if ``huggingface_hub`` is installed."""

from __future__ import annotations

import os
from pathlib import Path

from tokamask.errors import VocabularyError

FILES = ("tokenizer.json", "tekken.json", "tokenizer.model")
"""Names that tokenizer files have, the most complete first."""


def find(name_or_dir: str | os.PathLike[str], revision: str | None = None, token: str | None = None) -> str:
    """The path of a tokenizer file.

    Parameters
    ----------
    name_or_dir : str or path
        A folder that holds one of :data:`FILES` or a single ``.gguf``, or the name of a repository on the hub.
    revision, token : str, optional
        Of the repository; passed to ``huggingface_hub``.

    Raises
    ------
    VocabularyError
        Nothing is there; the text says where it was looked for and what to do.

    Examples
    --------
    >>> find("models/smollm2")  # doctest: +SKIP
    'models/smollm2/tokenizer.json'
    """
    folder = Path(name_or_dir)
    if folder.is_dir():
        return str(_in_folder(folder))
    name = str(name_or_dir)
    try:
        import huggingface_hub
    except ImportError:
        raise VocabularyError(
            f"{name}: no such folder; to look for a model of that name on the hub, install huggingface_hub",
            path=name,
        ) from None
    if folder.is_absolute() or name.startswith(("./", "../", "~")) or name.count("/") > 1:
        raise VocabularyError(f"{name}: no such folder", path=name)
    reasons = []
    for file in FILES:
        try:
            return str(huggingface_hub.hf_hub_download(name, file, revision=revision, token=token))
        except Exception as error:  # whatever the hub's client raises, the next file may still be there
            reasons.append(f"{file}: {type(error).__name__}")
    raise VocabularyError(
        f"{name}: no such folder, and the hub gave none of its files ({'; '.join(reasons)}); offline, pass the folder",
        path=name,
    )


def _in_folder(folder: Path) -> Path:
    for file in FILES:
        if (folder / file).is_file():
            return folder / file
    models = sorted(folder.glob("*.gguf"))
    if len(models) == 1:
        return models[0]
    raise VocabularyError(f"{folder}: holds none of {', '.join(FILES)}, nor a single .gguf", path=str(folder))
