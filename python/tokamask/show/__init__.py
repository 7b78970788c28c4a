"""Pictures of tokens and drafts, as strings: text for terminals, HTML, SVG. Whatever they show is escaped."""

from tokamask.show.draft import draft
from tokamask.show.tokens import compare_tokens, compare_tokens_html, tokens, tokens_html

__all__ = ["compare_tokens", "compare_tokens_html", "draft", "tokens", "tokens_html"]
