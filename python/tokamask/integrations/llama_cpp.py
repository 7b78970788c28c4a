"""Constrained and drafted generation with llama-cpp-python."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llama_cpp.llama_speculative import LlamaDraftModel

import tokamask as tm


class GrammarLogitsProcessor:
    """Lets ``Llama`` choose only tokens that a grammar allows: a logits processor of llama-cpp-python.

    One object per request; a text that is not a continuation of the last one is taken for a new request.

    Parameters
    ----------
    compiled : CompiledGrammar
        For the model's vocabulary: ``tm.Vocabulary.from_tokenizer(llama)``.

    Examples
    --------
    >>> compiled = tm.compile(tm.Grammar.json_schema(schema), tm.Vocabulary.from_tokenizer(llama))
    >>> processor = LogitsProcessorList([GrammarLogitsProcessor(compiled)])
    >>> llama.create_completion(prompt, logits_processor=processor)

    """

    def __init__(self, compiled: tm.CompiledGrammar) -> None:
        self._compiled = compiled
        self._matcher = compiled.matcher()
        self._known = np.zeros(0, np.intc)
        self._bitmask = tm.allocate_bitmask(1, len(compiled.vocabulary))

    @property
    def matcher(self) -> tm.Matcher:
        """The state before the token that was chosen last."""
        return self._matcher

    def __call__(
        self, input_ids: npt.NDArray[np.intc], scores: npt.NDArray[np.single]
    ) -> npt.NDArray[np.single]:
        """Scores float32 [vocab_size] with -inf where the grammar forbids a token; ``input_ids`` int32 [n] are prompt and text.

        With a draft model, the tokens at the end are guesses. Each call is for one token more than the last, so
        what is beyond that is not read.
        """
        known = len(self._known)
        if known and len(input_ids) > known and np.array_equal(input_ids[:known], self._known):
            self._matcher.accept(int(input_ids[known]))
            self._known = np.array(input_ids[: known + 1])
        else:
            self._matcher = self._compiled.matcher()
            self._known = np.array(input_ids)
        masked: npt.NDArray[np.single] = np.array(scores, np.single)[None]
        if not self._matcher.is_terminated() and self._matcher.fill_bitmask(self._bitmask):
            tm.apply_bitmask(masked, self._bitmask)
        row: npt.NDArray[np.single] = masked[0]
        return row


class DraftModel(LlamaDraftModel):  # type: ignore[misc]
    """Drafts for ``Llama(draft_model=...)``: guesses from everything already seen, verified in one pass.

    llama-cpp-python verifies one path, the one with most expected tokens.

    Parameters
    ----------
    drafter : Drafter, optional
        Shared between models and requests; a fresh one if not given.
    budget : int
        Most guesses per pass.
    grammar : GrammarLogitsProcessor, optional
        The processor of the request: guesses that its grammar forbids are not made. It may be set later.

    Examples
    --------
    >>> llama = Llama("model.gguf", draft_model=DraftModel(budget=8), logits_all=True)

    """

    def __init__(
        self,
        drafter: tm.Drafter | None = None,
        *,
        budget: int = 8,
        grammar: GrammarLogitsProcessor | None = None,
    ) -> None:
        self.drafter = tm.Drafter(recycle=0) if drafter is None else drafter
        self.budget = budget
        self.grammar = grammar
        self._session: tm.DraftSession | None = None
        self._bound: GrammarLogitsProcessor | None = None
        self._known = np.zeros(0, np.intc)

    def __call__(self, input_ids: npt.NDArray[np.intc], /, **kwargs: Any) -> npt.NDArray[np.intc]:
        """The guesses, int32 [k], that follow ``input_ids`` int32 [n], all of which are certain."""
        session, known = self._session, len(self._known)
        follows = len(input_ids) > known and np.array_equal(input_ids[:known], self._known)
        if session is None or self._bound is not self.grammar or not follows:
            # The processor has seen all but the token that was chosen last.
            matcher = None if self.grammar is None else self.grammar.matcher
            known = max(len(input_ids) - 1, 0)
            session = self.drafter.session(input_ids[:known].astype(np.uint32), matcher=matcher)
            self._session, self._bound = session, self.grammar
        session.update(input_ids[known:].astype(np.uint32))
        self._known = np.array(input_ids)
        return session.propose(self.budget, chain=True).token_ids.astype(np.intc)
