"""From a question to the token ids a chat model expects."""

from __future__ import annotations

import re

from tokamask import Tokenizer
from tokamask.errors import UnsupportedComponentError

START, END = "<|im_start|>", "<|im_end|>"


def chat_ids(tokenizer: Tokenizer, template: str, prompt: str, *, system: str | None = None) -> list[int]:
    """Token ids of one user turn in the ChatML form, ready for the assistant's answer.

    ``template`` is the chat template of the model file: it decides the form, and gives the system message where
    ``system`` is None. A model file without a template gets the bare prompt. Text in ``prompt`` that looks like a
    special token stays ordinary text.

    Raises ``UnsupportedComponentError`` for a template that is not ChatML.
    """
    if not template:
        return tokenizer.encode(prompt)
    special = tokenizer.vocabulary.special
    if START not in template or not {START, END} <= special.keys():
        raise UnsupportedComponentError(
            "the demo speaks ChatML, the model's chat template is another one", component="chat template"
        )
    default = re.search(rf"{re.escape(START)}system\n(.*?){re.escape(END)}", template, re.DOTALL)
    if system is None and default:
        system = default.group(1)
    turns = [("system", system)] if system else []
    ids: list[int] = []
    for role, text in [*turns, ("user", prompt)]:
        ids += [special[START], *tokenizer.encode(f"{role}\n{text}"), special[END], *tokenizer.encode("\n")]
    return [*ids, special[START], *tokenizer.encode("assistant\n")]
