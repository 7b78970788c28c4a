"""Hugging Face ``tokenizers``' names and meanings: ``import tokamask.compat.tokenizers as tokenizers``.

The components are Python, written to be read, and work with custom ones; offsets follow every normalizer. Version 0.23
is what was compared. ``encode_batch_fast`` gives texts to the Rust core where it reads all components; for speed alone
use :class:`tokamask.Tokenizer` itself.
"""

from enum import Enum

from tokamask.compat.tokenizers import (
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from tokamask.compat.tokenizers.added import AddedToken
from tokamask.compat.tokenizers.encoding import Encoding
from tokamask.compat.tokenizers.normalized import NormalizedString
from tokamask.compat.tokenizers.pretokenized import PreTokenizedString, Token
from tokamask.compat.tokenizers.regex import Regex
from tokamask.compat.tokenizers.tokenizer import Tokenizer

__version__ = "0.23.3"


class OffsetReferential(Enum):
    """What offsets count in: the original text or its normal form."""

    ORIGINAL = "original"
    NORMALIZED = "normalized"


class OffsetType(Enum):
    """What offsets count: bytes or characters."""

    BYTE = "byte"
    CHAR = "char"


class SplitDelimiterBehavior(Enum):
    """What becomes of the matches of a split."""

    REMOVED = "removed"
    ISOLATED = "isolated"
    MERGED_WITH_PREVIOUS = "merged_with_previous"
    MERGED_WITH_NEXT = "merged_with_next"
    CONTIGUOUS = "contiguous"


from tokamask.compat.tokenizers.implementations import (  # noqa: E402  # they are built from the names above
    BertWordPieceTokenizer,
    ByteLevelBPETokenizer,
    CharBPETokenizer,
    SentencePieceBPETokenizer,
    SentencePieceUnigramTokenizer,
)

__all__ = [
    "AddedToken",
    "BertWordPieceTokenizer",
    "ByteLevelBPETokenizer",
    "CharBPETokenizer",
    "Encoding",
    "NormalizedString",
    "OffsetReferential",
    "OffsetType",
    "PreTokenizedString",
    "Regex",
    "SentencePieceBPETokenizer",
    "SentencePieceUnigramTokenizer",
    "SplitDelimiterBehavior",
    "Token",
    "Tokenizer",
    "__version__",
    "decoders",
    "models",
    "normalizers",
    "pre_tokenizers",
    "processors",
    "trainers",
]
