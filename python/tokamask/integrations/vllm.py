"""vLLM: its structured outputs and its speculative decoding by tokamask.

Written against vLLM 0.33.0, whose base classes and call sites the tests compare; the engine itself was not run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import vllm.v1.structured_output
import vllm.v1.structured_output.backend_guidance
from vllm.exceptions import VLLMValidationError
from vllm.v1.structured_output.backend_types import (
    StructuredOutputBackend,
    StructuredOutputGrammar,
    StructuredOutputOptions,
)
from vllm.v1.structured_output.request import get_structured_output_key

import tokamask as tm
from tokamask.integrations.engines import Kind, RequestCompiler, as_array, read_grammar

KINDS: dict[StructuredOutputOptions, Kind] = {
    StructuredOutputOptions.JSON: "json",
    StructuredOutputOptions.JSON_OBJECT: "json_object",
    StructuredOutputOptions.REGEX: "regex",
    StructuredOutputOptions.GRAMMAR: "grammar",
    StructuredOutputOptions.CHOICE: "choice",
    StructuredOutputOptions.STRUCTURAL_TAG: "structural_tag",
}


class TokamaskGrammar(StructuredOutputGrammar):  # type: ignore[misc]
    """The grammar of one request and how far its text has come.

    Parameters
    ----------
    compiled : CompiledGrammar
        Shared by all requests that ask for the same.

    Examples
    --------
    >>> grammar = TokamaskGrammar(compiled)
    >>> grammar.accept_tokens("request", [7, 8])
    True

    """

    def __init__(self, compiled: tm.CompiledGrammar) -> None:
        self._matcher = compiled.matcher()

    def accept_tokens(self, request_id: str, tokens: list[int]) -> bool:
        """Advances; False at the first token that the grammar refuses. What follows the end is ignored."""
        return self._matcher.accept_prefix(tokens) == len(tokens) or self._matcher.is_terminated()

    def validate_tokens(self, tokens: list[int]) -> list[int]:
        """The longest prefix that would be accepted, up to the padding (-1) of a draft; the state stays."""
        drafted = tokens[: tokens.index(-1)] if -1 in tokens else tokens
        return drafted[: self._matcher.fork().accept_prefix(drafted)]

    def rollback(self, num_tokens: int) -> None:
        """Takes back the last tokens."""
        self._matcher.rollback(num_tokens)

    def fill_bitmask(self, bitmask: Any, batch_index: int) -> None:
        """Writes row ``batch_index`` of a bitmask int32 [rows, ceil(vocab_size / 32)]."""
        self._matcher.fill_bitmask(as_array(bitmask), batch_index)

    def is_terminated(self) -> bool:
        """True after a stop token."""
        return self._matcher.is_terminated()

    def reset(self) -> None:
        """Back to the beginning."""
        self._matcher.reset()


@dataclass
class TokamaskBackend(StructuredOutputBackend):  # type: ignore[misc]
    """Compiles grammars for one engine; see :func:`install` for how vLLM comes to use it.

    Examples
    --------
    >>> backend = TokamaskBackend(vllm_config, tokenizer=tokenizer, vocab_size=vocab_size)
    >>> backend.compile_grammar(StructuredOutputOptions.REGEX, "[0-9]+", stop_token_ids={2})

    """

    def __post_init__(self) -> None:
        options = self.vllm_config.structured_outputs_config
        self._compiler = RequestCompiler(
            self.tokenizer,
            self.vocab_size,
            compact=options.disable_any_whitespace,
            closed=options.disable_additional_properties,
        )

    @staticmethod
    def is_tokenizer_supported(tokenizer: Any) -> bool:
        """True if the bytes of the tokenizer's tokens can be told: fast tokenizers."""
        return hasattr(tokenizer, "backend_tokenizer")

    def compile_grammar(
        self,
        request_type: StructuredOutputOptions,
        grammar_spec: str,
        stop_token_ids: set[int] | None = None,
    ) -> StructuredOutputGrammar:
        """The grammar of a request. A GrammarError or LimitError fails that request."""
        compiled = self._compiler.compile(KINDS[request_type], grammar_spec, stop_ids=stop_token_ids)
        return TokamaskGrammar(compiled)

    def allocate_token_bitmask(self, max_num_seqs: int) -> Any:
        """A torch tensor on the CPU, int32 [max_num_seqs, ceil(vocab_size / 32)], that allows everything."""
        import torch

        return torch.from_numpy(tm.allocate_bitmask(max_num_seqs, self.vocab_size))

    def destroy(self) -> None:
        """Lets go of the compiled grammars."""
        self._compiler.clear()


def validate_grammar(sampling_params: Any, tokenizer: Any = None) -> None:
    """Refuses a request whose grammar cannot be read, before it reaches the engine.

    Raises
    ------
    VLLMValidationError
        What is wrong, with its place.

    """
    if sampling_params.structured_outputs is None:
        return
    kind, text = get_structured_output_key(sampling_params.structured_outputs)
    try:
        read_grammar(KINDS[kind], text)
    except tm.errors.TokamaskError as error:
        raise VLLMValidationError(f"Grammar error: {error}") from error


def install() -> None:
    """Makes vLLM's backend "guidance" this one, in this process.

    vLLM knows its backends by a closed list of names; the one named "guidance" is replaced, as its requests are
    not first cut down to what xgrammar supports. Every process of the engine must call it before the first
    request: the package's entry point of the group ``vllm.general_plugins`` does where ``TOKAMASK_VLLM=1`` is set.
    Start the engine with ``--structured-outputs-config.backend guidance``.
    """
    guidance = vllm.v1.structured_output.backend_guidance
    vllm.v1.structured_output.GuidanceBackend = TokamaskBackend
    guidance.GuidanceBackend = TokamaskBackend
    guidance.validate_guidance_grammar = validate_grammar


class DraftProposer:
    """Drafts for vLLM's custom proposer: ``speculative_config={"method": "custom_class", "model":
    "tokamask.integrations.vllm.DraftProposer", "num_speculative_tokens": 8}``.

    One drafter learns from all requests. vLLM verifies one path, the one with most expected tokens.

    Parameters
    ----------
    vllm_config : VllmConfig
        ``additional_config={"tokamask": {...}}`` holds arguments of :class:`tokamask.Drafter`, such as the
        measured ``verify_cost``.

    Examples
    --------
    >>> proposer = DraftProposer(vllm_config)
    >>> proposer.propose([[7]], np.array([5]), token_ids_cpu)

    """

    def __init__(self, vllm_config: Any) -> None:
        self._budget: int = vllm_config.speculative_config.num_speculative_tokens
        self._longest: int = vllm_config.model_config.max_model_len
        extra = getattr(vllm_config, "additional_config", None)
        options = extra.get("tokamask", {}) if isinstance(extra, dict) else {}
        self.drafter = tm.Drafter(**({"recycle": 0} | options))
        self._sessions: list[_Followed | None] = []

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """There is no model to load."""

    def propose(
        self,
        sampled_token_ids: list[list[int]],
        num_tokens_no_spec: Any,
        token_ids_cpu: Any,
        slot_mappings: Any = None,
    ) -> list[list[int]]:
        """A draft for each request.

        Parameters
        ----------
        sampled_token_ids : list[list[int]], [batch]
            What each request got in this step; nothing for one whose prompt is still being read.
        num_tokens_no_spec : int [batch or more]
            Tokens of each request, the new ones included.
        token_ids_cpu : int32 [batch or more, max_model_len]
            The tokens.
        slot_mappings : object
            Not used.

        """
        # Requests are known by their row only, and rows are rearranged between steps: a session is found by its tokens.
        left = [followed for followed in self._sessions if followed is not None]
        found: list[_Followed | None] = []
        drafts: list[list[int]] = []
        for row, new in enumerate(sampled_token_ids):
            length = int(num_tokens_no_spec[row])
            followed = None
            draft: list[int] = []
            if new and length < self._longest:
                tokens = token_ids_cpu[row, :length]
                same_row = self._sessions[row : row + 1]
                followed = next(
                    (f for f in [*same_row, *left] if f is not None and f.continues_as(tokens)), None
                )
                if followed is None:
                    followed = _Followed(self.drafter, tokens[: max(length - len(new), 0)])
                elif followed in left:
                    left.remove(followed)
                followed.follow(tokens)
                draft = followed.propose(min(self._budget, self._longest - length - 1))
            found.append(followed)
            drafts.append(draft)
        self._sessions = found
        return drafts


class _Followed:
    """A session and the last tokens it has seen, by which its request is recognised."""

    LAST = 32

    def __init__(self, drafter: tm.Drafter, prompt: Any) -> None:
        self._session = drafter.session(prompt.astype(np.uint32))
        self._note(prompt)

    def _note(self, tokens: Any) -> None:
        self._length = len(tokens)
        self._last = tokens[-self.LAST :].copy()

    def continues_as(self, tokens: Any) -> bool:
        """True if the tokens begin with what the session has seen, as far as its last tokens tell: a mistake
        would cost a worse draft and nothing else, as drafts are verified.
        """
        seen = tokens[max(self._length - self.LAST, 0) : self._length]
        return len(tokens) > self._length and np.array_equal(seen, self._last)

    def follow(self, tokens: Any) -> None:
        """Takes in what is new."""
        self._session.update(tokens[self._length :].astype(np.uint32))
        self._note(tokens)

    def propose(self, budget: int) -> list[int]:
        """The tokens of the best path."""
        if budget <= 0:
            return []
        path: list[int] = self._session.propose(budget, chain=True).token_ids.tolist()
        return path
