"""The exceptions of tokamask. Each carries the place it speaks of as attributes, not only as text."""

from __future__ import annotations


class TokamaskError(Exception):
    """Base of every error that tokamask raises on purpose."""


class VocabularyError(TokamaskError, ValueError):
    """A malformed or inconsistent vocabulary, merge list or tokenizer file."""

    def __init__(
        self, message: str, *, path: str | None = None, line: int | None = None, token: str | None = None
    ) -> None:
        super().__init__(message)
        self.path, self.line, self.token = path, line, token


class UnsupportedComponentError(TokamaskError):
    """A tokenizer component or split rule that is refused rather than guessed at."""

    def __init__(self, message: str, *, component: str, path: str | None = None) -> None:
        super().__init__(message)
        self.component, self.path = component, path


class UnknownTokenError(TokamaskError, KeyError):
    """A token id or byte string that the vocabulary does not hold."""

    def __init__(self, message: str, *, token_id: int | None = None, bytes: bytes | None = None) -> None:
        super().__init__(message)
        self.token_id, self.bytes = token_id, bytes

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would print the repr


class SpecialTokenError(TokamaskError, ValueError):
    """Text of a special token where it is not allowed; ``span`` is in bytes."""

    def __init__(self, message: str, *, token: str, span: tuple[int, int]) -> None:
        super().__init__(message)
        self.token, self.span = token, span


class GrammarError(TokamaskError, ValueError):
    """A grammar that cannot be read; ``line`` and ``column`` of ``source`` count from 1."""

    def __init__(
        self,
        message: str,
        *,
        source: str | None = None,
        line: int | None = None,
        column: int | None = None,
        json_pointer: str | None = None,
    ) -> None:
        super().__init__(message)
        self.source, self.line, self.column, self.json_pointer = source, line, column, json_pointer


class UnsupportedKeywordError(GrammarError):
    """A schema keyword, or a combination of keywords, that is named and refused."""

    def __init__(self, message: str, *, json_pointer: str, keyword: str) -> None:
        super().__init__(message, json_pointer=json_pointer)
        self.keyword = keyword


class UnsatisfiableError(GrammarError):
    """No token sequence can match."""

    def __init__(self, message: str, *, json_pointer: str | None = None) -> None:
        super().__init__(message, json_pointer=json_pointer)


class RejectedTokenError(TokamaskError, ValueError):
    """A matcher was given a token that its grammar forbids: ``expected`` says what fits in the place of the token's byte
    ``byte``, at ``json_pointer`` of a JSON document (None for texts that are no JSON).
    """

    def __init__(
        self,
        message: str,
        *,
        token_id: int,
        position: int,
        expected: str,
        byte: int = 0,
        json_pointer: str | None = None,
    ) -> None:
        super().__init__(message)
        self.token_id, self.position, self.expected = token_id, position, expected
        self.byte, self.json_pointer = byte, json_pointer


class RollbackError(TokamaskError, ValueError):
    """More tokens were to be undone than were accepted."""

    def __init__(self, message: str, *, requested: int, available: int) -> None:
        super().__init__(message)
        self.requested, self.available = requested, available


class LimitError(TokamaskError, RuntimeError):
    """A bound on states, depth, bytes or time was exceeded."""

    def __init__(self, message: str, *, limit: str, value: int) -> None:
        super().__init__(message)
        self.limit, self.value = limit, value


class ShapeError(TokamaskError, ValueError):
    """An array of the wrong shape or dtype."""

    def __init__(self, message: str, *, name: str, expected: str, got: str) -> None:
        super().__init__(message)
        self.name, self.expected, self.got = name, expected, got


class CorpusError(TokamaskError, ValueError):
    """Text or saved counts that training cannot read; ``position`` is the byte in the file."""

    def __init__(self, message: str, *, path: str | None = None, position: int | None = None) -> None:
        super().__init__(message)
        self.path, self.position = path, position


class KernelError(TokamaskError, RuntimeError):
    """A CUDA kernel that does not compile, load or launch."""

    def __init__(self, message: str, *, kernel: str, arch: str, log: str = "") -> None:
        super().__init__(message)
        self.kernel, self.arch, self.log = kernel, arch, log
