"""Pictures of tokens and drafts, as strings: text for terminals, HTML, SVG. Whatever they show is escaped."""

from tokamask.show.draft import draft
from tokamask.show.tokens import tokens, tokens_html

__all__ = ["draft", "tokens", "tokens_html"]
