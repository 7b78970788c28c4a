"""Text from a real model, held to a grammar, with draft trees: every part of tokamask in one loop.

One turn of the loop: the model has given logits for the last token and for every node of a draft tree. Walk down the
tree as long as the chosen token, the best or a sampled one under the grammar's mask, is a child; keep that path in the
model's cache; guess a new tree below the last token; let the grammar prune it; let the model read it.

Drafts change no token: a token is chosen from the same logits and the same random bits with and without them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

import tokamask as tm
from tokamask import sampling, selection
from tokamask.demo.chat import chat_ids
from tokamask.demo.closing import Closer
from tokamask.demo.model import Engine
from tokamask.demo.model_file import find_model
from tokamask.demo.weights import Floats
from tokamask.draft import SOURCES, DraftTree
from tokamask.errors import GrammarError, LimitError, ShapeError

DRAFT_NODES = 24
"""Most nodes of a tree. More were never worth their time on a CPU."""
RECYCLED = 8
"""Runners-up of each row of logits that drafting learns from."""
LONGEST_SHOWN_SCHEMA = 3000
"""Characters of a schema beyond which the model is not shown it; the mask holds all the same."""
FORCED_PROB = 0.95
"""How often the model cuts forced bytes as the longest tokens do."""
EMPTY = DraftTree([], [])


@dataclasses.dataclass(frozen=True)
class Generation:
    """What was written.

    ``finish`` is "complete" (the model ended the text; under a grammar it matches), "closed" (the tokens ran out and
    the text was brought to its nearest end; it matches) or "length" (cut off; under a grammar it does not match).
    ``stats`` holds plain numbers, ready for JSON.
    """

    text: str
    ids: list[int]
    finish: str
    stats: dict[str, Any]

    @property
    def complete(self) -> bool:
        """Whether the text is whole."""
        return self.finish != "length"


class Model:
    """An engine, the tokenizer of the same file, and what drafting learns from one text to the next."""

    def __init__(self, engine: Engine, tokenizer: tm.Tokenizer) -> None:
        self.engine, self.tokenizer = engine, tokenizer
        self.vocabulary = tokenizer.vocabulary.with_(vocab_size=engine.vocab_size)
        self.load_seconds = 0.0
        self.drafter = tm.Drafter(recycle=RECYCLED)

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None, *, progress: bool = True) -> Model:
        """Reads weights and tokenizer of a GGUF file; without a path, of the demo's own model."""
        start = time.perf_counter()
        file = find_model() if path is None else path
        model = cls(Engine.load(file, progress=progress), tm.Tokenizer.from_file(file))
        model.load_seconds = time.perf_counter() - start
        return model


def generate(
    prompt: str,
    *,
    schema: Mapping[str, Any] | bool | str | None = None,
    regex: str | None = None,
    max_tokens: int = 256,
    temperature: float = 0.0,
    seed: int = 0,
    drafts: bool = True,
    system: str | None = None,
    model: Model | str | os.PathLike[str] | None = None,
    progress: bool = False,
    on_text: Callable[[str], None] | None = None,
) -> Generation:
    """Answer ``prompt`` with a small language model on the CPU.

    Parameters
    ----------
    prompt : str
        The user's turn of a chat.
    schema : JSON Schema, optional
        A document or its text. The answer is JSON that is valid against it. The model is shown the schema too, unless it is long.
    regex : str, optional
        The answer matches this regular expression as a whole. Not together with ``schema``.
    max_tokens : int
        At most so many tokens. A constrained text is closed before they run out, where that is possible.
    temperature : float
        0 takes the likeliest allowed token; above, tokens are drawn.
    seed : int
        Of the draws: the same seed gives the same text, with drafts or without.
    drafts : bool
        Several tokens a step, where the measured cost of a wider step is worth it.
    system : str, optional
        Instead of the model's own system message.
    model : Model or path, optional
        A loaded model, or a Llama-architecture GGUF file; the demo's own model if not given.
    progress : bool
        Shows a bar while a model is loaded, if that takes over two seconds.
    on_text : callable, optional
        Is given each piece of the text as soon as it is certain.

    Returns
    -------
    Generation

    Raises
    ------
    GrammarError
        A schema or an expression that is malformed, or that cannot be matched.
    LimitError
        A prompt that does not fit the model's context.

    """
    if max_tokens < 1:
        raise ShapeError(
            f"max_tokens: expected 1 or more, got {max_tokens}",
            name="max_tokens",
            expected=">= 1",
            got=str(max_tokens),
        )
    grammar = _grammar(schema, regex)
    if not isinstance(model, Model):
        model = Model.load(model, progress=progress)
    if schema is not None:
        prompt = _with_schema(prompt, schema)
    prompt_ids = chat_ids(model.tokenizer, model.engine.config.chat_template, prompt, system=system)
    return _Run(model, grammar, prompt_ids, max_tokens, temperature, seed, drafts, on_text).write()


def _grammar(schema: Mapping[str, Any] | bool | str | None, regex: str | None) -> tm.Grammar | None:
    if schema is not None and regex is not None:
        raise GrammarError("schema and regex: give one of them")
    if regex is not None:
        return tm.Grammar.regex(regex)
    if schema is None:
        return None
    return tm.Grammar.json_schema(
        schema, whitespace="compact", property_order="schema"
    )  # models wander in white space


class _Run:
    """One generation: its state between steps, and what it counts."""

    def __init__(
        self,
        model: Model,
        grammar: tm.Grammar | None,
        prompt_ids: list[int],
        max_tokens: int,
        temperature: float,
        seed: int,
        drafts: bool,
        on_text: Callable[[str], None] | None,
    ) -> None:
        self.model, self.prompt_ids, self.drafts = model, prompt_ids, drafts
        self.temperature, self.seed = temperature, seed
        room = model.engine.config.context_length - len(prompt_ids)
        if room < 1:
            limit = model.engine.config.context_length
            raise LimitError(
                f"the prompt's {len(prompt_ids)} tokens leave no room in the model's context of {limit}",
                limit="context_length",
                value=limit,
            )
        self.max_tokens = min(max_tokens, room)
        self.seconds = dict.fromkeys(("load", "compile", "prefill", "decode", "masks", "drafts"), 0.0)
        self.seconds["load"] = model.load_seconds
        self.count = dict.fromkeys(("forwards", "masks", "proposed", "accepted"), 0)
        self.ids: list[int] = []
        self.on_text, self._shown = on_text, 0
        self._decoder = model.tokenizer.stream_decoder()
        self.finish = "length"
        self.matcher: tm.Matcher | None = None
        if grammar is not None:
            with self._clock("compile"):
                self.matcher = tm.compile(grammar, model.vocabulary).matcher()
        self.bitmask = tm.allocate_bitmask(DRAFT_NODES + 1, model.engine.vocab_size)
        self.eos_ids = set(model.vocabulary.eos_ids)
        self.closer = Closer(model.tokenizer)
        shortest = self.closer.close(self.matcher, self.max_tokens) if self.matcher else None
        self.watch = 64 + 2 * len(shortest or ())  # tokens left from which the way out is looked for
        self._way_out_at, self._known_way_out = -1, shortest

    def write(self) -> Generation:
        """Prefill, then step by step until the text ends."""
        engine = self.model.engine
        with self._clock("prefill"):
            # Logits of the whole prompt would feed the drafts too, but cost a quarter of the prefill again: no gain.
            logits = engine.prefill(self.prompt_ids)[None]
        session = self._session() if self.drafts else None
        start = time.perf_counter()
        tree = self._masked(EMPTY)
        while True:
            new, path, ended = self._walk(logits, tree)
            self._show(ended)
            self.count["proposed"] += len(tree)
            self.count["accepted"] += len(path)
            if ended:
                break
            engine.keep(path)
            if session is not None:
                tree = self._guess(session, tree, new, logits)
            tree = self._masked(tree)
            begun = time.process_time()  # unlike the wall's, free of what else the machine does
            logits = engine.step(new[-1], tree)
            if session is not None:  # how many nodes are worth their time is learned from every step
                self.model.drafter.observe(len(tree) + 1, time.process_time() - begun)
            self.count["forwards"] += 1
        self.seconds["decode"] = time.perf_counter() - start
        return Generation(self.model.tokenizer.decode(self.ids), self.ids, self.finish, self._stats())

    def _show(self, ended: bool) -> None:
        if self.on_text is not None:
            pieces = [self._decoder.push(token) for token in self.ids[self._shown :]]
            self._shown = len(self.ids)
            self.on_text("".join(pieces) + (self._decoder.flush() if ended else ""))

    def _session(self) -> tm.DraftSession:
        with self._clock("drafts"):
            return self.model.drafter.session(self.prompt_ids)

    def _guess(self, session: tm.DraftSession, tree: DraftTree, new: list[int], logits: Floats) -> DraftTree:
        """Lets the session learn from a step, and joins its next tree with what the grammar forces."""
        room = max(self.max_tokens - len(self.ids) - 1, 0)  # a step writes one token more than it accepts
        with self._clock("drafts"):
            session.update(new, tree=tree, topk_ids=_top(logits))
            guess = session.propose(budget=min(DRAFT_NODES, room))
            forced = self.matcher.forced_tokens()[:room] if self.matcher is not None else []
            return _join(forced, guess) if forced else guess

    def _masked(self, tree: DraftTree) -> DraftTree:
        """Fills one mask row per position and drops the nodes that the grammar does not reach."""
        if self.matcher is None:
            return tree
        with self._clock("masks"):
            rows = len(tree) + 1
            reached = self.matcher.fill_tree(self.bitmask[:rows], tree)
            self.count["masks"] += rows
        if reached.all():
            return tree
        kept = np.flatnonzero(reached)
        self.bitmask[1 : len(kept) + 1] = self.bitmask[kept + 1]
        return _subtree(tree, kept)

    def _walk(self, logits: Floats, tree: DraftTree) -> tuple[list[int], list[int], bool]:
        """Chooses tokens down the tree: the new tokens, the nodes they met, and whether the text ended."""
        children = {
            (parent, token): node
            for node, (parent, token) in enumerate(
                zip(tree.parents.tolist(), tree.token_ids.tolist(), strict=True)
            )
        }
        new: list[int] = []
        path: list[int] = []
        node = -1
        while True:
            token = self._choose(logits, node + 1)
            new.append(token)
            if self._ends_with(token):
                return new, path, True
            if (node, token) not in children:
                return new, path, False
            node = children[node, token]
            path.append(node)

    def _choose(self, logits: Floats, row: int) -> int:
        """The next token from one row of logits; what is random in it depends on the seed and the place in the text."""
        tokens, _ = sampling.sample(
            logits[row : row + 1],
            bitmask=None if self.matcher is None else self.bitmask[row : row + 1],
            temperature=self.temperature,
            seed=self.seed,
            step=len(self.ids),
        )
        return int(tokens[0])

    def _ends_with(self, token: int) -> bool:
        """Takes ``token`` into the text; True when the text ends with it."""
        if token in self.eos_ids:
            self.finish = "complete"
            return True
        matcher = self.matcher
        way_out = self._way_out()
        self.ids.append(token)
        if matcher is not None:
            matcher.accept(token)
            if self._nothing_follows(matcher):
                self.finish = "complete"
                return True
            if way_out is not None and self._way_out() is None:
                self.ids[-1:] = way_out  # a step too far: instead of it the way that still fits
                self.finish = "closed"
                return True
        if len(self.ids) < self.max_tokens:
            return False
        self.finish = "closed" if matcher is not None and matcher.is_accepting() else "length"
        return True

    def _nothing_follows(self, matcher: tm.Matcher) -> bool:
        """Whether the text is complete and the grammar allows nothing but its end."""
        if not matcher.is_accepting():
            return False
        row = tm.allocate_bitmask(1, self.model.engine.vocab_size)
        matcher.fill_bitmask(row)
        return int(np.unpackbits(row.view(np.uint8)).sum()) <= len(self.eos_ids)

    def _way_out(self) -> list[int] | None:
        """Tokens that complete the text within what is left; looked for only once little is left."""
        left = self.max_tokens - len(self.ids)
        if self.matcher is None or left > self.watch:
            return None
        if self._way_out_at != len(self.ids):
            self._way_out_at, self._known_way_out = len(self.ids), self.closer.close(self.matcher, left)
        return self._known_way_out

    def _stats(self) -> dict[str, Any]:
        count, seconds = self.count, self.seconds
        return {
            "model": self.model.engine.config.name,
            "prompt_tokens": len(self.prompt_ids),
            "tokens": len(self.ids),
            "tokens_per_second": len(self.ids) / seconds["decode"] if seconds["decode"] else 0.0,
            "seconds": {name: round(value, 4) for name, value in seconds.items()},
            "masks": {
                "count": count["masks"],
                "mean_us": 1e6 * seconds["masks"] / count["masks"] if count["masks"] else 0.0,
            },
            "drafts": {
                "proposed": count["proposed"],
                "accepted": count["accepted"],
                "tokens_per_forward": len(self.ids) / max(count["forwards"], 1),
            },
            "forwards": count["forwards"],
        }

    @contextlib.contextmanager
    def _clock(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start


def _join(forced: list[int], tree: DraftTree) -> DraftTree:
    """The tree with a path of ``forced`` tokens, as many as fit.

    The grammar forces bytes; how the model would cut them into tokens is a guess, if a good one. So they are verified
    like any draft, and the law of the tokens stays the model's own under the mask.
    """
    nodes: dict[tuple[int, ...], tuple[float, int]] = {(): (1.0, 0)}
    for node in range(len(tree)):
        nodes[tuple(tree.path_ids(node))] = (float(tree.probs[node]), int(tree.sources[node]))
    for length in range(1, 1 + min(len(forced), DRAFT_NODES)):
        path = tuple(forced[:length])
        nodes[path] = max(nodes.get(path, (0.0, 0)), (FORCED_PROB**length, SOURCES.index("forced")))
    best = sorted(nodes, key=lambda path: (-nodes[path][0], len(path)))[: DRAFT_NODES + 1]
    numbers: dict[tuple[int, ...], int] = {(): -1}
    children: dict[tuple[int, ...], list[tuple[int, ...]]] = {path: [] for path in best}
    for path in best[1:]:
        children[path[:-1]].append(path)
    level = children[()]
    while level:  # breadth-first
        for path in level:
            numbers[path] = len(numbers) - 1
        level = [child for path in level for child in children[path]]
    order = list(numbers)[1:]
    return DraftTree(
        [path[-1] for path in order],
        [numbers[path[:-1]] for path in order],
        [nodes[path][0] for path in order],
        [nodes[path][1] for path in order],
    )


def _subtree(tree: DraftTree, kept: npt.NDArray[np.int64]) -> DraftTree:
    """The nodes ``kept``, which holds every parent of its nodes."""
    renumbered = np.full(len(tree) + 1, -1)
    renumbered[kept] = np.arange(len(kept))  # the last entry serves parent -1
    parents = renumbered[tree.parents[kept]]
    return DraftTree(tree.token_ids[kept], parents, tree.probs[kept], tree.sources[kept])


def _top(logits: Floats) -> npt.NDArray[np.int32]:
    """The likeliest tokens of each row, best first: int32 [rows, RECYCLED]."""
    top = selection.top_k(logits, RECYCLED)
    order = np.argsort(-np.take_along_axis(logits, top, axis=1), axis=1, kind="stable")
    return np.take_along_axis(top, order, axis=1)


def _with_schema(prompt: str, schema: Mapping[str, Any] | bool | str) -> str:
    """The schema first, then the task: of several ways to say it the one that a small model followed best."""
    text = json.dumps(json.loads(schema) if isinstance(schema, str) else schema)
    return (
        f"JSON Schema:\n{text}\n\n{prompt} Write only the JSON."
        if len(text) <= LONGEST_SHOWN_SCHEMA
        else prompt
    )
