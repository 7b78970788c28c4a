"""``tiktoken``'s names and meanings over :class:`tokamask.Tokenizer`: ``import tokamask.compat.tiktoken as tiktoken``.

Ids, errors, pickles, plug-ins (``tiktoken_ext``) and the cache folder (``TIKTOKEN_CACHE_DIR``) are as there; version
0.14 is what was compared. Downloads go through the standard library, so neither ``requests`` nor ``regex`` is needed.
"""

from tokamask.compat.tiktoken.core import Encoding
from tokamask.compat.tiktoken.model import encoding_for_model, encoding_name_for_model
from tokamask.compat.tiktoken.registry import get_encoding, list_encoding_names

__version__ = "0.14.0"
__all__ = [
    "Encoding",
    "__version__",
    "encoding_for_model",
    "encoding_name_for_model",
    "get_encoding",
    "list_encoding_names",
]
