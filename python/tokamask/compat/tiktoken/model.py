"""Which encoding a model uses."""

from __future__ import annotations

from tokamask.compat.tiktoken.core import Encoding
from tokamask.compat.tiktoken.registry import get_encoding

_MODELS = {
    "o200k_base": "o1 o3 o4-mini gpt-5 gpt-4.1 gpt-4o",
    "cl100k_base": "gpt-4 gpt-3.5-turbo gpt-3.5 gpt-35-turbo davinci-002 babbage-002 text-embedding-ada-002 "
    "text-embedding-3-small text-embedding-3-large",
    "p50k_base": "text-davinci-003 text-davinci-002 code-davinci-002 code-davinci-001 code-cushman-002 "
    "code-cushman-001 davinci-codex cushman-codex",
    "p50k_edit": "text-davinci-edit-001 code-davinci-edit-001",
    "r50k_base": "text-davinci-001 text-curie-001 text-babbage-001 text-ada-001 davinci curie babbage ada "
    "text-similarity-davinci-001 text-similarity-curie-001 text-similarity-babbage-001 text-similarity-ada-001 "
    "text-search-davinci-doc-001 text-search-curie-doc-001 text-search-babbage-doc-001 text-search-ada-doc-001 "
    "code-search-babbage-code-001 code-search-ada-code-001",
    "gpt2": "gpt2 gpt-2",
}
_PREFIXES = {  # the first that fits wins
    "o200k_base": "o1- o3- o4-mini- gpt-5 gpt-4.5- gpt-4.1- chatgpt-4o- gpt-4o- ft:gpt-4o",
    "o200k_harmony": "gpt-oss-",
    "cl100k_base": "gpt-4- gpt-3.5-turbo- gpt-35-turbo- ft:gpt-4 ft:gpt-3.5-turbo ft:davinci-002 ft:babbage-002",
}


def _by_model(table: dict[str, str]) -> dict[str, str]:
    return {model: encoding for encoding, models in table.items() for model in models.split()}


MODEL_TO_ENCODING: dict[str, str] = _by_model(_MODELS)
MODEL_PREFIX_TO_ENCODING: dict[str, str] = _by_model(_PREFIXES)


def encoding_name_for_model(model_name: str) -> str:
    """The name of the encoding of a model; KeyError if neither it nor a prefix of it is known.

    Examples
    --------
    >>> encoding_name_for_model("gpt-4o-2024-05-13")
    'o200k_base'
    """
    if model_name in MODEL_TO_ENCODING:
        return MODEL_TO_ENCODING[model_name]
    for prefix, encoding in MODEL_PREFIX_TO_ENCODING.items():
        if model_name.startswith(prefix):
            return encoding
    raise KeyError(
        f"no encoding is known for the model {model_name!r}; name one: get_encoding('cl100k_base')"
    )


def encoding_for_model(model_name: str) -> Encoding:
    """The encoding of a model; KeyError as :func:`encoding_name_for_model`.

    Examples
    --------
    >>> encoding_for_model("gpt-4o").name  # doctest: +SKIP
    'o200k_base'
    """
    return get_encoding(encoding_name_for_model(model_name))
