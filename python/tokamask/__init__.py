"""tokamask: the token-level half of LLM inference.

Tokenizers, grammar masks, lookahead drafts and the array kernels around them.
"""

from tokamask import attention, errors, sampling, selection, train
from tokamask._core import Drafter, DraftSession, Tokenizer, Vocabulary
from tokamask.draft import DraftTree, verify_greedy, verify_sampled
from tokamask.ragged import Ragged
from tokamask.sampling import apply_bitmask

__version__ = "0.1.0"
__all__ = [
    "DraftSession",
    "DraftTree",
    "Drafter",
    "Ragged",
    "Tokenizer",
    "Vocabulary",
    "__version__",
    "apply_bitmask",
    "attention",
    "errors",
    "sampling",
    "selection",
    "train",
    "verify_greedy",
    "verify_sampled",
]
