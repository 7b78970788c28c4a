"""Pictures of tokens, drafts and selections, as strings: text for terminals, HTML, SVG. Whatever they show is escaped."""

from tokamask.show.attention import attention, selection
from tokamask.show.draft import draft
from tokamask.show.tokens import compare_tokens, compare_tokens_html, tokens, tokens_html

__all__ = [
    "attention",
    "compare_tokens",
    "compare_tokens_html",
    "draft",
    "selection",
    "tokens",
    "tokens_html",
]
