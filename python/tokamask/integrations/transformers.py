"""Constrained and drafted generation with Hugging Face transformers."""

from __future__ import annotations

import contextlib
import math
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

    def get_candidates(self, input_ids: Any, **kwargs: Any) -> tuple[Any, Any]:
        """The sequence int64 [1, length] with guesses behind it, and no scores for them."""
        if input_ids.shape[0] != 1:
            expected, got = "int64 [1, length]: one sequence", str(list(input_ids.shape))
            raise ShapeError(
                f"input_ids: expected {expected}, got {got}", name="input_ids", expected=expected, got=got
            )
        ids: list[int] = input_ids[0].tolist()
        session, known = self._session, len(self._known)
        if session is None or ids[:known] != self._known:
            session, known = self.drafter.session(ids), len(ids)
            self._session = session
        session.update(ids[known:])
        self._known = ids
        most = self.budget if self.longest is None else min(self.budget, self.longest - len(ids) - 1)
        if most <= 0:
            return input_ids, None
        tree = session.propose(budget=2 * most)
        guess = tree.token_ids[tree.best_path(most)].tolist()
        return torch.cat([input_ids, input_ids.new_tensor([guess])], dim=1) if guess else input_ids, None

    def update_candidate_strategy(self, input_ids: Any, scores: Any, num_matches: int) -> None:
        """The drafter learns from the accepted tokens of the next call."""


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
        Most guesses per forward pass; fewer are made where more do not pay.
    verify_cost : list[float], optional
        Time of a forward pass over 1, 2, 4, 8, ... tokens, in any unit; measured on the model if not given.

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
        self._times: list[float] = []  # of a forward pass over 1, 2, 3, ... tokens
        if verify_cost is not None:
            sizes = [2**i for i in range(len(verify_cost))]
            self._times = np.interp(np.arange(1, budget + 2), sizes, verify_cost).tolist()

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
        unread, guess = input_ids, list[int]()
        with torch.no_grad():
            while True:
                read = torch.cat([unread, unread.new_tensor([guess])], dim=1) if guess else unread
                logits = model(input_ids=read, past_key_values=cache, use_cache=True).logits
                self.forwards += 1
                new, ended = [], False
                for place, row in enumerate(logits[:, -1 - len(guess) :].float().unbind(dim=1)):
                    scores = logits_processor(input_ids, row)
                    token = _choose(scores, generation_config.do_sample)
                    new.append(int(token))
                    input_ids = torch.cat([input_ids, token], dim=1)
                    ended = bool(torch.as_tensor(stopping_criteria(input_ids, scores)).all())
                    if ended or place == len(guess) or new[-1] != guess[place]:
                        break
                self.tokens += len(new)
                if ended:
                    return input_ids
                if not self._times:
                    self._times = _measured(model, cache, input_ids[:, -1:], self.budget + 1)
                if surplus := cache.get_seq_length() - (input_ids.shape[1] - 1):
                    cache.crop(-surplus)
                session.update(new)
                unread = input_ids[:, -1:]
                guess = _worthwhile_path(session.propose(budget=4 * self.budget), self._times)


def _choose(scores: Any, sampled: bool) -> Any:
    """One token [1, 1] from processed scores [1, vocab_size]."""
    if sampled:
        return torch.multinomial(scores.softmax(dim=-1), 1)
    return scores.argmax(dim=-1, keepdim=True)


def _measured(model: Any, cache: DynamicCache, token: Any, most: int) -> list[float]:
    """Seconds of a forward pass over 1, 2, ... ``most`` tokens behind the cache, which stays as it was.

    The less of two turns for each power of two, straight lines between them.
    """
    sizes = [1]
    while sizes[-1] < most:
        sizes.append(min(2 * sizes[-1], most))
    seconds = dict.fromkeys(sizes, math.inf)
    for size in [1, *sizes, *sizes]:  # the first one warms up
        start = time.perf_counter()
        model(input_ids=token.expand(1, size), past_key_values=cache, use_cache=True).logits[0, -1, 0].item()
        seconds[size] = min(seconds[size], time.perf_counter() - start)
        cache.crop(-size)
    curve = np.interp(np.arange(1, most + 1), sizes, [seconds[size] for size in sizes])
    return list(map(float, curve))


MARGIN = 1.05
"""A draft must promise this much more per second than none: measured times wobble, and the loop itself takes some."""


def _worthwhile_path(tree: tm.DraftTree, times: list[float]) -> list[int]:
    """From the root always on to the likeliest child, as far as it yields most expected tokens per second."""
    path, node, expected = list[int](), -1, 1.0
    best, best_rate = 0, MARGIN / times[0]
    while len(path) + 1 < len(times):
        children = np.flatnonzero(tree.parents == node)
        if not len(children):
            break
        node = int(children[tree.probs[children].argmax()])
        path.append(int(tree.token_ids[node]))
        expected += float(tree.probs[node])
        if expected / times[len(path)] > best_rate:
            best, best_rate = len(path), expected / times[len(path)]
    return path[:best]
