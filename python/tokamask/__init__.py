"""tokamask: tokenizers, grammar masks, lookahead drafts and the array kernels around them."""

from tokamask import attention, errors, metrics, sampling, selection, train, transfer
from tokamask._core import CompiledGrammar, Drafter, DraftSession, Matcher, Tokenizer, Vocabulary
from tokamask.draft import DraftTree, verify_greedy, verify_sampled
from tokamask.encoding import Encoding
from tokamask.grammar import Grammar, Limits, compile
from tokamask.matcher import allocate_bitmask, fill_bitmasks
from tokamask.ragged import Ragged
from tokamask.sampling import apply_bitmask, sample_awrs

__version__ = "0.1.0"
__all__ = [
    "CompiledGrammar",
    "DraftSession",
    "DraftTree",
    "Drafter",
    "Encoding",
    "Grammar",
    "Limits",
    "Matcher",
    "Ragged",
    "Tokenizer",
    "Vocabulary",
    "allocate_bitmask",
    "apply_bitmask",
    "attention",
    "compile",
    "errors",
    "fill_bitmasks",
    "metrics",
    "sample_awrs",
    "sampling",
    "selection",
    "train",
    "transfer",
    "verify_greedy",
    "verify_sampled",
]
