"""SGLang: its structured outputs (``--grammar-backend tokamask``) and its speculative decoding
(``--speculative-algorithm TOKAMASK``) by tokamask.

Written against SGLang 0.5.23, whose base classes and call sites the tests compare; the engine itself was not run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from sglang.srt.constrained.base_grammar_backend import (
    BaseGrammarBackend,
    BaseGrammarObject,
    GrammarStats,
    InvalidGrammarObject,
    register_grammar_backend,
    register_vocab_mask_buffer,
)

import tokamask as tm
from tokamask.integrations.engines import Kind, RequestCompiler, as_array

FORMATS: dict[str, str] = {"json": "json_schema", "regex": "pattern", "grammar": "grammar"}


class TokamaskGrammar(BaseGrammarObject):  # type: ignore[misc]
    """The grammar of one request and how far its text has come.

    Parameters
    ----------
    matcher : Matcher
        The state.
    kind, text : str
        What was asked for.

    Examples
    --------
    >>> grammar = TokamaskGrammar(compiled.matcher(), "regex", "[0-9]+")
    >>> grammar.accept_token(7)

    """

    def __init__(self, matcher: tm.Matcher, kind: Kind, text: str) -> None:
        super().__init__()
        self.matcher = matcher
        self.kind: Kind = kind
        self.text = text
        self.grammar_stats = GrammarStats(dispatch_type=kind)

    def accept_token(self, token: int) -> None:
        """Advances; a RejectedTokenError, which is a ValueError, if the grammar refuses the token."""
        if not self.matcher.is_terminated():
            self.current_token = token
            self.matcher.accept(token)

    def rollback(self, k: int) -> None:
        """Takes back the last tokens."""
        self.matcher.rollback(k)

    def is_terminated(self) -> bool:
        """True after an end of sequence."""
        return self.matcher.is_terminated()

    def allocate_vocab_mask(self, vocab_size: int, batch_size: int, device: Any) -> Any:
        """A torch tensor in host memory, int32 [batch_size, ceil(vocab_size / 32)], that allows everything."""
        return _allocated(vocab_size, batch_size)

    def fill_vocab_mask(self, vocab_mask: Any, idx: int) -> None:
        """Writes row ``idx``."""
        self.matcher.fill_bitmask(as_array(vocab_mask), idx)

    @staticmethod
    def fill_vocab_mask_batched(entries: list[Any], vocab_mask: Any) -> None:
        """Writes the rows listed, those of our own grammars in one call and with threads."""
        own = [entry for entry in entries if isinstance(entry.grammar, TokamaskGrammar)]
        rows = [entry.row for entry in own]
        tm.fill_bitmasks([entry.grammar.matcher for entry in own], as_array(vocab_mask), rows)
        others = [entry for entry in entries if not isinstance(entry.grammar, TokamaskGrammar)]
        BaseGrammarObject.fill_vocab_mask_batched(others, vocab_mask)

    @staticmethod
    def reset_vocab_mask(vocab_mask: Any) -> None:
        """Allows everything."""
        vocab_mask.fill_(-1)

    @staticmethod
    def move_vocab_mask(vocab_mask: Any, device: Any) -> Any:
        """The mask on the device of the logits."""
        return vocab_mask.to(device, non_blocking=True)

    @staticmethod
    def apply_vocab_mask(logits: Any, vocab_mask: Any) -> None:
        """Writes -inf over the logits that the mask forbids: on a device by SGLang's own kernel."""
        if logits.device.type == "cpu":
            tm.apply_bitmask(logits, vocab_mask)
            return
        from sglang.kernels.ops.grammar.bitmask_ops import apply_token_bitmask_inplace_triton

        apply_token_bitmask_inplace_triton(logits, vocab_mask)

    def copy(self) -> TokamaskGrammar:
        """Another request in the same state."""
        return TokamaskGrammar(self.matcher.fork(), self.kind, self.text)

    def try_jump_forward(self, tokenizer: Any) -> tuple[list[int], str] | None:
        """The tokens that the grammar leaves no choice about."""
        forced = self.matcher.forced_tokens()
        return (forced, "") if forced else None

    def jump_forward_str_state(self, helper: tuple[list[int], str]) -> tuple[str, int]:
        """The tokens carry everything."""
        return helper[1], -1

    def jump_and_retokenize(
        self, old_output_ids: list[int], new_output_ids: list[int], next_state: int
    ) -> None:
        """Back to where the two outputs part, then along the new one."""
        same = 0
        for old, new in zip(old_output_ids, new_output_ids, strict=False):
            if old != new:
                break
            same += 1
        self.matcher.rollback(len(old_output_ids) - same)
        for token in new_output_ids[same:]:
            self.matcher.accept(token)

    def __repr__(self) -> str:
        return f"<TokamaskGrammar from {self.kind} after {len(self.matcher)} tokens>"


def _allocated(vocab_size: int, rows: int) -> Any:
    import torch

    mask = torch.from_numpy(tm.allocate_bitmask(rows, vocab_size))
    return mask.pin_memory() if torch.cuda.is_available() else mask


class TokamaskBackend(BaseGrammarBackend):  # type: ignore[misc]
    """Compiles grammars for one engine.

    Parameters
    ----------
    tokenizer : object
        As for ``Vocabulary.from_tokenizer``.
    vocab_size : int
        Width of the model's logits.
    eos_token_ids : collection of int, optional
        Tokens that end a sequence.
    compact : bool
        No white space between the parts of JSON.

    Examples
    --------
    >>> backend = TokamaskBackend(tokenizer, 151936, eos_token_ids={151645})
    >>> backend.dispatch_regex("[0-9]+")
    <TokamaskGrammar from regex after 0 tokens>

    """

    def __init__(
        self,
        tokenizer: Any,
        vocab_size: int,
        eos_token_ids: Iterable[int] | None = None,
        *,
        compact: bool = False,
    ) -> None:
        super().__init__()
        stops = None if eos_token_ids is None else set(eos_token_ids)
        self._compiler = RequestCompiler(tokenizer, vocab_size, stop_ids=stops, compact=compact)

    def initialize_vocab_mask_buffer(self, name: str, vocab_size: int, max_rows: int, device: Any) -> Any:
        """A mask that the engine uses again in each step."""
        return register_vocab_mask_buffer(name, _allocated(vocab_size, max_rows), max_rows)

    def _dispatch(self, kind: Kind, text: str) -> Any:
        try:
            compiled = self._compiler.compile(kind, text)
        except tm.errors.TokamaskError as error:
            return InvalidGrammarObject(str(error))
        return TokamaskGrammar(compiled.matcher(), kind, text)

    def dispatch_json(self, key_string: str) -> Any:
        """JSON that a schema allows; ``$$ANY$$`` is any JSON."""
        return self._dispatch("json", "true" if key_string == "$$ANY$$" else key_string)

    def dispatch_regex(self, key_string: str) -> Any:
        """Texts that match a pattern as a whole."""
        return self._dispatch("regex", key_string)

    def dispatch_ebnf(self, key_string: str) -> Any:
        """Texts of a grammar in EBNF or in Lark's notation."""
        return self._dispatch("grammar", key_string)

    def dispatch_structural_tag(self, key_string: str) -> Any:
        """Texts of a structural tag."""
        return self._dispatch("structural_tag", key_string)

    def compile_framed_grammar(
        self, grammar: TokamaskGrammar, frame: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> Any:
        """A structural tag around a grammar, such as the thinking before an answer."""
        return self._dispatch("structural_tag", json.dumps(frame(_as_format(grammar.kind, grammar.text))))

    @property
    def is_support_token_filter(self) -> bool:
        """Single tokens of a mask can be set."""
        return True

    @staticmethod
    def set_token_filter(
        vocab_mask: Any,
        token_ids: list[int],
        batch_idx: int,
        is_allowed: bool = True,
        reset_vocab_mask: bool = True,
    ) -> None:
        """Allows or forbids tokens of a row."""
        from sglang.srt.constrained.torch_ops.token_filter_torch_ops import set_token_filter_torch

        set_token_filter_torch(
            vocab_mask, token_ids, batch_idx, is_allowed=is_allowed, reset_vocab_mask=reset_vocab_mask
        )

    # What the engine asks of a backend for requests that only filter tokens.
    allocate_vocab_mask = staticmethod(
        lambda vocab_size, batch_size, device: _allocated(vocab_size, batch_size)
    )
    move_vocab_mask = staticmethod(TokamaskGrammar.move_vocab_mask)
    apply_vocab_mask = staticmethod(TokamaskGrammar.apply_vocab_mask)

    def reset(self) -> None:
        """Forgets all compiled grammars."""
        super().reset()
        self._compiler.clear()


def _as_format(kind: Kind, text: str) -> dict[str, Any]:
    """A grammar as a part of a structural tag."""
    if kind == "json":
        return {"type": "json_schema", "json_schema": json.loads(text)}
    if kind == "regex":
        return {"type": "regex", "pattern": text}
    if kind == "structural_tag":
        whole: dict[str, Any] = json.loads(text)
        return (
            whole["format"]
            if "format" in whole
            else {"type": "triggered_tags", "tags": whole.pop("structures"), **whole}
        )
    return {"type": "grammar" if "::=" in text else "lark", "grammar": text}


class DraftCorpus:
    """A drafter behind the methods that SGLang's n-gram worker calls on its corpus.

    Parameters
    ----------
    draft_token_num : int
        Positions of a verified tree, its root included.
    drafter : Drafter, optional
        A fresh one if not given.

    Examples
    --------
    >>> corpus = DraftCorpus(4)
    >>> ids, mask = corpus.batch_get(["r"], [[1, 2, 3, 1, 2]], [5])
    >>> ids.tolist()
    [2, 3, 1, 2]

    """

    def __init__(self, draft_token_num: int, drafter: tm.Drafter | None = None) -> None:
        self.draft_token_num = draft_token_num
        self.drafter = tm.Drafter(recycle=0) if drafter is None else drafter
        self._sessions: dict[str, tuple[tm.DraftSession, int]] = {}
        self._corpora: dict[str, int] = {}

    def start(self, req_id: str, prompt: Sequence[int]) -> None:
        """Gives the whole prompt of a request, of which :meth:`batch_get` sees the end only."""
        if req_id not in self._sessions:
            self._sessions[req_id] = self.drafter.session(list(prompt)), len(prompt)

    def batch_get(
        self, req_ids: list[str], batch_tokens: list[list[int]], total_lens: list[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Trees for some requests.

        Parameters
        ----------
        req_ids : list[str], [batch]
            Which requests.
        batch_tokens : list[list[int]], [batch]
            Their last tokens.
        total_lens : list[int], [batch]
            How many tokens they have.

        Returns
        -------
        token_ids : int64 [batch * draft_token_num]
            Of each tree: the last token, which is the root, the nodes, and zeros as padding.
        mask : int64 [batch * draft_token_num * draft_token_num]
            1 where a node is another's ancestor or itself.

        """
        n = self.draft_token_num
        ids = np.zeros((len(req_ids), n), np.int64)
        masks = np.zeros((len(req_ids), n, n), np.int64)
        for row, (req_id, tokens, total) in enumerate(zip(req_ids, batch_tokens, total_lens, strict=True)):
            session, seen = self._sessions.get(req_id, (None, 0))
            if session is None or not 0 <= total - seen <= len(tokens):
                session, seen = self.drafter.session(tokens), total
            if total > seen:
                session.update(tokens[len(tokens) - (total - seen) :])
            self._sessions[req_id] = session, total
            tree = session.propose(budget=n - 1)
            ids[row, 0] = tokens[-1] if tokens else 0
            ids[row, 1 : len(tree) + 1] = tree.token_ids
            parents = [-1, *(tree.parents + 1).tolist(), *[0] * (n - 1 - len(tree))]
            for node, parent in enumerate(parents):
                if parent >= 0:
                    masks[row, node] = masks[row, parent]
                masks[row, node, node] = 1
        return ids.ravel(), masks.ravel()

    def batch_put(self, batch_tokens: list[list[int]]) -> None:
        """Sessions learn as they go on."""

    def synchronize(self) -> None:
        """Nothing is done in the background."""

    def erase_match_state(self, req_ids: list[str]) -> None:
        """Lets go of requests that ended."""
        for req_id in req_ids:
            self._sessions.pop(req_id, None)

    def reset(self) -> None:
        """Lets go of all requests; what was learned stays."""
        self._sessions.clear()

    def load_external_corpus_named(self, corpus_id: str, chunks: Iterable[Sequence[int]]) -> int:
        """Learns from texts as if they had been served; how many tokens they had."""
        if corpus_id in self._corpora:
            raise ValueError(f"corpus {corpus_id!r} was loaded already")
        loaded = 0
        for chunk in chunks:
            self.drafter.session([]).update(list(chunk))
            loaded += len(chunk)
        return loaded

    def commit_external_corpus_load(self, corpus_id: str, loaded_token_count: int) -> None:
        """Notes that a corpus was loaded."""
        self._corpora[corpus_id] = loaded_token_count

    def remove_external_corpus(self, corpus_id: str) -> None:
        """Counts that were learned cannot be told apart: they give way with time."""
        self._corpora.pop(corpus_id, None)

    def list_external_corpora(self) -> dict[str, int]:
        """Tokens of each corpus."""
        return dict(self._corpora)


def draft_worker(server_args: Any) -> type:
    """SGLang's n-gram worker with a :class:`DraftCorpus` in the place of its own corpus.

    Draft trees, their verification, grammars and overlap are the worker's.
    """
    from sglang.srt.speculative import ngram_worker

    class TokamaskWorker(ngram_worker.NGRAMWorker):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.ngram_corpus = DraftCorpus(self.draft_token_num)

        def _prepare_draft_tokens(self, batch: Any) -> Any:
            for req in batch.reqs:
                self.ngram_corpus.start(req.rid, req.origin_input_ids_unpadded)
            return super()._prepare_draft_tokens(batch)

    return TokamaskWorker


def register() -> None:
    """Adds the grammar backend "tokamask" and the speculative algorithm "TOKAMASK" to SGLang, in this process.

    The package's entry point of the group ``sglang.srt.plugins`` calls it in each process of the engine.
    """
    from sglang.srt.arg_groups.choices import GRAMMAR_BACKEND_CHOICES, add_grammar_backend_choices
    from sglang.srt.runtime_context import get_serving
    from sglang.srt.speculative.spec_info import SpeculativeAlgorithm
    from sglang.srt.speculative.spec_registry import CustomSpecAlgo, get_spec

    def backend(server_args: Any, tokenizer: Any, vocab_size: int, eos_token_ids: Any) -> TokamaskBackend:
        compact = bool(get_serving().constrained_json_disable_any_whitespace)
        return TokamaskBackend(tokenizer, vocab_size, eos_token_ids, compact=compact)

    if "tokamask" not in GRAMMAR_BACKEND_CHOICES:
        add_grammar_backend_choices(["tokamask"])
    register_grammar_backend("tokamask", backend)
    if get_spec("TOKAMASK") is not None:
        return

    ngram = SpeculativeAlgorithm.NGRAM
    # To the engine the algorithm is the n-gram one in all that it asks, also where the class for
    # plug-ins has no answer of its own.
    asked = [name for name, value in vars(SpeculativeAlgorithm).items() if callable(value) and name[0] != "_"]
    own = {"create_worker", "register", "from_string", "get_platform_worker_cls"}
    answers = {name: _forwarded(getattr(ngram, name)) for name in asked if name not in own}
    algorithm = type("TokamaskAlgorithm", (CustomSpecAlgo,), answers)
    SpeculativeAlgorithm.register("TOKAMASK", supports_overlap=True, spec_class=algorithm)(draft_worker)


def _forwarded(method: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, *args, **kwargs: method(*args, **kwargs)
