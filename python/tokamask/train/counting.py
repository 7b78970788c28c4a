"""Counting pretokens: the one pass over the text."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

from tokamask import _core
from tokamask.errors import CorpusError
from tokamask.train import corpus
from tokamask.train.counts import PretokenCounts, read, write
from tokamask.train.progress import Report, reporter
from tokamask.train.rules import DIGIT_GROUPS, Component, component, components, plain


def count(
    source: corpus.Source,
    *,
    pre_tokenizer: str | Component | object = "gpt2",
    normalizer: Component | object | None = None,
    runs: bool | Component | object = False,
    by_line: bool | None = None,
    skip_broken: bool = False,
    checkpoint: str | PathLike[str] | None = None,
    progress: bool | Report = True,
) -> PretokenCounts:
    """Counts the pretokens of a corpus, on all cores, in memory bounded by what is distinct.

    Parameters
    ----------
    source : path, paths, texts or Arrow string column
        Paths are files of UTF-8 text, read line by line; strings are texts.
    pre_tokenizer : str, component or HF object
        Cuts text into pretokens: ``"gpt2"``, ``"cl100k"``, ``"o200k"``, ``"superbpe"``, a component of a
        tokenizer.json as a dict, or an object of HF's ``pre_tokenizers``.
    normalizer : component or HF object, optional
        What becomes of each text, or line, before it is cut; tokenizers that learn from the counts keep it.
    runs : bool, component or HF object
        Also count runs of pretokens, which superwords are learnt from. The component says where even
        superwords end; True: at digits and between groups of three of them, counted from the right.
        Pretokens are then cut inside the pieces of this rule.
    by_line : bool, optional
        Cut texts after each newline first, so that no pretoken, run or token reaches over one. Files
        are always read so; texts only if runs are counted, unless this says otherwise.
    skip_broken : bool
        Leave out files that cannot be read or are not UTF-8 (the result names them in ``skipped``)
        instead of raising. Costs a second reading of each file.
    checkpoint : path, optional
        Save the counts there every minute, when interrupted and when done; a later call with the same
        arguments goes on from there to the identical result. Delete it when it has served.
    progress : bool or function
        A bar on a terminal; or ``report(stage, done, total)``, in bytes for files.

    Raises
    ------
    CorpusError
        A file cannot be read or is not UTF-8: ``path`` and ``position`` name the place.

    Examples
    --------
    >>> counts = tm.train.count(["to be or not to be"])
    >>> counts.total, dict(counts.items())[b" be"]
    (6, 2)

    """
    files, texts = corpus.open_source(source)
    rules = {
        "pre_tokenizer": component(pre_tokenizer),
        "run_pre_tokenizer": None if runs is False else component(DIGIT_GROUPS if runs is True else runs),
        "normalizer": None if normalizer is None else component(normalizer),
        "by_line": by_line if by_line is not None else files is not None or runs is not False,
    }
    if files is not None and by_line is False:
        raise ValueError("by_line: files are always read line by line; pass texts instead")
    work = _Work(rules, files, None if checkpoint is None else Path(checkpoint), reporter(progress))
    with work.saved_if_interrupted():
        if files is None:
            work.count_texts(texts)
        else:
            work.count_files(files, skip_broken)
    return work.finish()


def counted(
    source: PretokenCounts | corpus.Source, *, pre_tokenizer: Any, tell: Report, runs: Any = False
) -> PretokenCounts:
    """Counts, made now if the source is text."""
    if isinstance(source, PretokenCounts):
        return source
    return count(source, pre_tokenizer=pre_tokenizer, runs=runs, progress=tell)


class _Work:
    """A count in progress, and its checkpoint."""

    def __init__(
        self, rules: dict[str, Any], files: list[Path] | None, checkpoint: Path | None, report: Report
    ) -> None:
        self.rules, self.checkpoint, self.report = rules, checkpoint, report
        self.source = None if files is None else [(str(path), _size(path)) for path in files]
        self.size = sum(size for _, size in self.source or [])
        runs = rules["run_pre_tokenizer"]
        self.counter = _core.PretokenCounter(
            components(rules) if runs is not None else plain(rules),
            None if runs is None else components(rules, "run_pre_tokenizer"),
            rules["by_line"],
        )
        #: Where to go on: number of files (or texts) done, and bytes of the next file.
        self.place = (0, 0)
        self.texts = self.text_bytes = 0
        self.skipped: list[tuple[str, str]] = []
        self.saved = time.monotonic()
        if checkpoint is not None and checkpoint.exists():
            self.resume(checkpoint)

    def resume(self, path: Path) -> None:
        held, header = read(path)
        if header["rules"] != json.loads(json.dumps(self.rules)) or header.get("source") != json.loads(
            json.dumps(self.source)
        ):
            raise CorpusError(
                f"{path}: a checkpoint of other files or other rules; delete it to start anew", path=str(path)
            )
        self.counter.add_counts(held.arrays)
        self.place = tuple(header["place"])
        self.texts, self.text_bytes, self.skipped = held.texts, held.text_bytes, held.skipped

    def count_texts(self, texts: Iterator[str]) -> None:
        for _ in range(self.place[0]):
            next(texts, None)
        for batch in corpus.texts_in_batches(texts):
            self.counter.add_texts(batch)
            self.texts += len(batch)
            self.text_bytes += sum(len(t) if t.isascii() else len(t.encode()) for t in batch)
            self.place = (self.place[0] + len(batch), 0)
            self.report("counting", self.text_bytes, None)
            self.tick()

    def count_files(self, files: list[Path], skip_broken: bool) -> None:
        total = self.size
        batch: list[tuple[int, int, bytes]] = []
        held = 0
        for nth, start, block in self.blocks(files, skip_broken):
            batch.append((nth, start, block))
            held += len(block)
            if held >= corpus.BATCH:
                self.count_blocks(files, batch, total)
                batch, held = [], 0
        self.count_blocks(files, batch, total)
        self.place = (len(files), 0)

    def blocks(self, files: list[Path], skip_broken: bool) -> Iterator[tuple[int, int, bytes]]:
        done, position = self.place
        for nth in range(done, len(files)):
            if skip_broken:
                try:
                    corpus.check(files[nth])
                except CorpusError as error:
                    if (str(files[nth]), str(error)) not in self.skipped:
                        self.skipped.append((str(files[nth]), str(error)))
                    continue
            for start, block in corpus.blocks(files[nth], position if nth == done else 0):
                yield nth, start, block

    def count_blocks(self, files: list[Path], batch: list[tuple[int, int, bytes]], total: int) -> None:
        if not batch:
            return
        self.counter.add_blocks(
            [block for _, _, block in batch], [(str(files[nth]), start) for nth, start, _ in batch]
        )
        self.texts += sum(block.count(b"\n") + (not block.endswith(b"\n")) for _, _, block in batch)
        self.text_bytes += sum(len(block) for _, _, block in batch)
        nth, start, block = batch[-1]
        self.place = (nth, start + len(block))
        self.report("counting", self.text_bytes, total)
        self.tick()

    def tick(self, every: float = 60.0) -> None:
        if self.checkpoint is not None and time.monotonic() - self.saved > every:
            self.save()

    def save(self) -> PretokenCounts:
        counts = PretokenCounts(
            self.counter.counts(),
            self.rules,
            texts=self.texts,
            text_bytes=self.text_bytes,
            skipped=self.skipped,
        )
        if self.checkpoint is not None:
            write(self.checkpoint, counts, {"place": self.place, "source": self.source})
        self.saved = time.monotonic()
        return counts

    @contextlib.contextmanager
    def saved_if_interrupted(self) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:
            if self.checkpoint is not None:
                self.save()
            raise

    def finish(self) -> PretokenCounts:
        if self.source is not None:
            self.report("counting", self.text_bytes, self.text_bytes)
        return self.save()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
