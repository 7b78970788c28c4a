"""Constrained and drafted generation with Hugging Face transformers."""

from __future__ import annotations

import contextlib
import inspect
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache, LogitsProcessor
from transformers.generation.candidate_generator import CandidateGenerator

import tokamask as tm
from tokamask.errors import ShapeError


class GrammarLogitsProcessor(LogitsProcessor):  # type: ignore[misc]
    """Lets ``model.generate`` choose only tokens that a grammar allows.

    One object per call of ``generate``. It follows each sequence of the batch by its tokens, so beams may be
    reordered; a sequence that has ended is left alone. In assisted generation it is asked about guesses too: behind
    one that the grammar forbids, and that generation therefore drops, scores are left alone.

    Parameters
    ----------
    compiled : CompiledGrammar
        Its vocabulary must be as wide as the model's logits: ``vocabulary.with_(vocab_size=model.config.vocab_size)``.

    Examples
    --------
    >>> vocabulary = tm.Vocabulary.from_tokenizer(tokenizer).with_(vocab_size=model.config.vocab_size)
    >>> compiled = tm.compile(tm.Grammar.json_schema(schema), vocabulary)
    >>> model.generate(**inputs, logits_processor=[GrammarLogitsProcessor(compiled)])

    """

    def __init__(self, compiled: tm.CompiledGrammar) -> None:
        self._compiled = compiled
        compiled.fill_ahead()  # while the model reads the prompt
        self._prompt_length = -1
        # None behind a token that does not fit.
        self._matchers: dict[tuple[int, ...], tm.Matcher | None] = {}

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Scores [batch, vocab_size] with -inf where the grammar forbids a token; ``input_ids`` [batch, length]."""
        width = len(self._compiled.vocabulary)
        if scores.shape[-1] != width:
            expected = (
                f"[batch, vocab_size={width}], as wide as the vocabulary that the grammar was compiled for"
            )
            raise ShapeError(
                f"scores: expected {expected}, got {list(scores.shape)}; see Vocabulary.with_(vocab_size=)",
                name="scores",
                expected=expected,
                got=str(list(scores.shape)),
            )
        if self._prompt_length < 0:
            self._prompt_length = input_ids.shape[1]
        texts = [tuple(row) for row in input_ids[:, self._prompt_length :].tolist()]
        # After a rejected guess generation goes back by a few tokens.
        shortest = min(map(len, texts)) - RECALLED
        self._matchers = {text: m for text, m in self._matchers.items() if len(text) >= shortest}
        matchers = [self._matcher(text) for text in texts]
        rows = np.full(len(matchers), -1, np.int32)
        bitmask = tm.allocate_bitmask(len(matchers), width)
        for row, matcher in enumerate(matchers):
            if matcher is not None and not matcher.is_terminated():
                matcher.fill_bitmask(bitmask, row)  # writes the row even where it allows everything
                rows[row] = row
        masked = scores.clone().contiguous()
        masks = (torch.from_numpy(array).to(masked.device) for array in (bitmask, rows))
        tm.apply_bitmask(masked, *masks)
        return masked

    def _matcher(self, text: tuple[int, ...]) -> tm.Matcher | None:
        """The matcher after ``text``: from an earlier step's where it was there, else from the beginning."""
        if text in self._matchers:
            return self._matchers[text]
        before = text[:-1]
        if text and before in self._matchers:
            known = self._matchers[before]
            matcher = None if known is None else _after(known.fork(), text[-1:])
        else:
            matcher = _after(self._compiled.matcher(), text)
        self._matchers[text] = matcher
        return matcher


RECALLED = 128
"""Tokens by which a text may go back without being read again."""


def _after(matcher: tm.Matcher, tokens: tuple[int, ...]) -> tm.Matcher | None:
    """The matcher advanced, as far as the end of the text, behind which there is padding; None if a token does not fit."""
    fits = matcher.accept_prefix(list(tokens))
    return matcher if fits == len(tokens) or matcher.is_terminated() else None


EMPTY = tm.DraftTree([], [])
RECYCLED = 8
"""Runners-up of each row of logits that drafting learns from."""


class DraftCandidateGenerator(CandidateGenerator):  # type: ignore[misc]
    """Drafts for the library's own assisted generation, one sequence at a time; see :func:`assisted_by`.

    Parameters
    ----------
    drafter : Drafter, optional
        Shared between calls, it learns from one text to the next; a fresh one if not given.
    budget : int
        Most guesses per forward pass.

    Examples
    --------
    >>> with assisted_by(model, DraftCandidateGenerator()):
    ...     model.generate(**inputs, prompt_lookup_num_tokens=8)

    """

    def __init__(self, drafter: tm.Drafter | None = None, *, budget: int = 8) -> None:
        self.drafter = tm.Drafter(recycle=0) if drafter is None else drafter
        self.budget = budget
        #: Tokens that a sequence may have, prompt included; guesses beyond would be cut off.
        self.longest: int | None = None
        self._session: tm.DraftSession | None = None
        self._known: list[int] = []
        self._asked: tuple[int, float] | None = None  # rows of the forward under way, and since when

    def get_candidates(self, input_ids: Any, **kwargs: Any) -> tuple[Any, Any]:
        """The sequence int64 [1, length] with guesses behind it, and no scores for them."""
        if input_ids.shape[0] != 1:
            expected, got = "int64 [1, length]: one sequence", str(list(input_ids.shape))
            raise ShapeError(
                f"input_ids: expected {expected}, got {got}", name="input_ids", expected=expected, got=got
            )
        ids: list[int] = input_ids[0].tolist()
        session, known = self._session, len(self._known)
        fresh = session is None or ids[:known] != self._known  # then the forward reads a prompt
        if session is None or fresh:
            session, known = self.drafter.session(ids), len(ids)
            self._session = session
        session.update(ids[known:])
        self._known = ids
        most = self.budget if self.longest is None else min(self.budget, self.longest - len(ids) - 1)
        if most <= 0:
            return input_ids, None
        guess = session.propose(most, chain=True).token_ids.tolist()
        self._asked = None if fresh else (len(guess) + 1, time.perf_counter())
        return torch.cat([input_ids, input_ids.new_tensor([guess])], dim=1) if guess else input_ids, None

    def update_candidate_strategy(self, input_ids: Any, scores: Any, num_matches: int) -> None:
        """The drafter learns what the forward took; from the accepted tokens in the next call."""
        if self._asked is not None:
            rows, asked = self._asked
            self.drafter.observe(rows, time.perf_counter() - asked)


@contextlib.contextmanager
def assisted_by(model: Any, generator: DraftCandidateGenerator) -> Iterator[None]:
    """Makes the assisted generation of a model ask ``generator`` for its candidates, in a ``with`` block.

    transformers has no public way to name a candidate generator: a private method of the model is replaced for the
    while. Pass ``prompt_lookup_num_tokens`` to ``generate`` to choose assisted generation.
    """

    def make(generation_config: Any, *args: Any, **kwargs: Any) -> DraftCandidateGenerator:
        generator.longest = generation_config.max_length
        return generator

    model._get_candidate_generator = make
    try:
        yield
    finally:
        del model._get_candidate_generator


class DraftedGeneration:
    """A decoding loop for ``model.generate(custom_generate=...)``: guesses several tokens and checks them in one pass.

    The output is what plain greedy decoding gives, or, with ``do_sample``, follows the same law as plain sampling: each
    token is chosen from the model's own processed scores, and a guess is kept where it equals the choice. One
    sequence at a time; of a draft tree the likeliest path is used, as the models' masks know no trees.

    Parameters
    ----------
    drafter : Drafter, optional
        Shared between calls, it learns from one text to the next; a fresh one if not given.
    budget : int
        Most guesses per forward pass; fewer are made where more do not pay: what wider passes cost is learned from the
        passes themselves.
    verify_cost : list[float], optional
        What to start from: seconds of a forward pass over 1, 2, 4, 8, ... tokens.

    Examples
    --------
    >>> loop = DraftedGeneration()
    >>> model.generate(**inputs, custom_generate=loop, logits_processor=[GrammarLogitsProcessor(compiled)])

    """

    def __init__(
        self, drafter: tm.Drafter | None = None, *, budget: int = 8, verify_cost: list[float] | None = None
    ) -> None:
        self.drafter = tm.Drafter() if drafter is None else drafter
        self.budget = budget
        self.forwards = self.tokens = 0
        for width, seconds in enumerate(verify_cost or ()):
            self.drafter.observe(2**width, seconds)

    def __call__(
        self,
        model: Any,
        input_ids: Any,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **model_kwargs: Any,
    ) -> Any:
        """The whole sequence [1, length], as ``generate`` expects it back."""
        if input_ids.shape[0] != 1:
            expected, got = "int64 [1, length]: one sequence", str(list(input_ids.shape))
            raise ShapeError(
                f"input_ids: expected {expected}, got {got}", name="input_ids", expected=expected, got=got
            )
        session = self.drafter.session(input_ids[0].tolist())
        cache = DynamicCache(config=model.config)
        # Other processes on the machine slow forwards down at random; on a CPU their own time is known.
        clock = time.process_time if input_ids.device.type == "cpu" else time.perf_counter
        few = "logits_to_keep" in inspect.signature(model.forward).parameters
        unread, tree = input_ids, EMPTY
        with torch.no_grad():
            while True:
                guess = tree.token_ids.tolist()
                rows = len(guess) + 1
                read = torch.cat([unread, unread.new_tensor([guess])], dim=1) if guess else unread
                start = clock()
                kept = {"logits_to_keep": rows} if few else {}
                logits = model(input_ids=read, past_key_values=cache, use_cache=True, **kept).logits[
                    0, -rows:
                ]
                self.forwards += 1
                new, ended = [], False
                for place, row in enumerate(logits.float().unsqueeze(1)):
                    scores = logits_processor(input_ids, row)
                    token = _choose(scores, generation_config.do_sample)
                    new.append(int(token))
                    if (
                        place == 0 and read.shape[1] == rows
                    ):  # it has waited for the device; prompts do not count
                        self.drafter.observe(rows, clock() - start)
                    input_ids = torch.cat([input_ids, token], dim=1)
                    ended = bool(torch.as_tensor(stopping_criteria(input_ids, scores)).all())
                    if ended or place == len(guess) or new[-1] != guess[place]:
                        break
                self.tokens += len(new)
                if ended:
                    return input_ids
                if surplus := cache.get_seq_length() - (input_ids.shape[1] - 1):
                    cache.crop(-surplus)
                session.update(
                    new,
                    tree=tree,
                    topk_ids=logits.topk(min(RECYCLED, logits.shape[-1])).indices.cpu().numpy(),
                )
                unread = input_ids[:, -1:]
                tree = session.propose(self.budget, chain=True)


def _choose(scores: Any, sampled: bool) -> Any:
    """One token [1, 1] from processed scores [1, vocab_size]."""
    if sampled:
        return torch.multinomial(scores.softmax(dim=-1), 1)
    return scores.argmax(dim=-1, keepdim=True)
