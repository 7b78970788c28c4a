"""Arrow columns of strings to columns of token ids, for datasets, Ray Data, Spark and Dask alike.

All of them call a stateless function with a batch, a table or a dict of columns, once per worker and batch:

- datasets: ``dataset.map(TokenizeBatch(tok, "text"), batched=True)``
- Ray Data: ``data.map_batches(TokenizeBatch(tok, "text"), batch_format="pyarrow")``
- Spark: ``frame.mapInArrow(TokenizeBatch(tok, "text").each, "text string, input_ids array<int>")``
- Dask: ``frame.map_partitions(...)`` with the same function on Arrow tables
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tokamask import Ragged, Tokenizer, _core, train
from tokamask.errors import CorpusError


def encode_column(
    tokenizer: Tokenizer, column: Any, *, add_special_tokens: bool = False, allowed_special: Any = None
) -> Any:
    """A column of strings as a column of lists of ids; needs pyarrow.

    Parameters
    ----------
    tokenizer : Tokenizer
    column : string array
        A ``pyarrow`` array or chunked array, or anything with ``__arrow_c_array__`` or ``__arrow_c_stream__`` (polars).
        Text and ids are one buffer each; only missing values cost a copy.
    add_special_tokens, allowed_special
        As :meth:`tokamask.Tokenizer.encode_batch`.

    Returns
    -------
    pyarrow.LargeListArray of uint32
        A missing text gives a missing row.

    Raises
    ------
    TypeError
        The column is not of strings.

    Examples
    --------
    >>> encode_column(tok, pa.array(["one two", None])).to_pylist()  # doctest: +SKIP
    [[392, 827], None]
    """
    import pyarrow as pa

    strings = _strings(column)
    data, bounds = _buffers(strings)
    rows = Ragged(*_core.encode_utf8(tokenizer, data, bounds, add_special_tokens, allowed_special))
    if not strings.null_count:
        return rows.to_arrow()
    missing = strings.is_null()
    keep = ~missing.to_numpy(zero_copy_only=False)
    lengths = np.diff(rows.offsets) * keep
    ids = rows.ids[np.repeat(keep, np.diff(rows.offsets))]
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(ids), mask=missing)


def _strings(column: Any) -> Any:
    import pyarrow as pa

    if not isinstance(column, (pa.Array, pa.ChunkedArray)):
        if not (hasattr(column, "__arrow_c_array__") or hasattr(column, "__arrow_c_stream__")):
            raise TypeError(f"column: expected an Arrow array of strings, got {type(column).__name__}")
        column = pa.chunked_array(column) if hasattr(column, "__arrow_c_stream__") else pa.array(column)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # what no chunk at all gives
            column = pa.array([], column.type)
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    if not any(kind(column.type) for kind in kinds):
        raise TypeError(f"column: expected strings, got {column.type}")
    return column.cast(pa.large_string())  # only the offsets are written anew, if they are narrower


def _buffers(strings: Any) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The bytes of an array of large strings and where each begins, as they lie there."""
    _, starts, data = strings.buffers()
    bounds = np.frombuffer(starts or b"", np.int64)[strings.offset : strings.offset + len(strings) + 1]
    if len(bounds) == 0:
        bounds = np.zeros(1, np.int64)
    return np.frombuffer(data or b"", np.uint8), bounds


class TokenizeBatch:
    """A function over batches that adds a column of ids; pickled as its tokenizer and names, nothing else.

    Parameters
    ----------
    tokenizer : Tokenizer
    column : str
        The column of texts.
    output : str
        The column of ids, ``input_ids`` unless said otherwise.
    add_special_tokens : bool

    Examples
    --------
    >>> TokenizeBatch(tok, "text")({"text": ["one two"]})["input_ids"]  # doctest: +SKIP
    [[392, 827]]
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        column: str,
        output: str = "input_ids",
        *,
        add_special_tokens: bool = False,
    ) -> None:
        self.tokenizer, self.column, self.output = tokenizer, column, output
        self.add_special_tokens = add_special_tokens

    def __call__(self, batch: Any) -> Any:
        """The batch with a column of ids: a dict gives a dict, a table a table, a record batch a record batch."""
        if isinstance(batch, Mapping):
            texts = list(batch[self.column])
            rows = self.tokenizer.encode_batch(texts, add_special_tokens=self.add_special_tokens)
            return {**batch, self.output: rows.to_lists()}
        ids = encode_column(
            self.tokenizer, batch.column(self.column), add_special_tokens=self.add_special_tokens
        )
        return batch.append_column(self.output, ids)

    def each(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The same over an iterator of record batches, as Spark's ``mapInArrow`` calls it; the ids are ``array<int>``.

        Spark knows neither unsigned numbers nor Arrow's large lists, so ids are signed 32-bit ones here.
        """
        import pyarrow as pa

        for batch in map(self, batches):
            place = batch.schema.get_field_index(self.output)
            yield batch.set_column(place, self.output, batch.column(place).cast(pa.list_(pa.int32())))


class CountBatch:
    """A function over batches that gives one row with the batch's counts, for training on what a cluster has read.

    The counts of all rows, added up by :func:`sum_counts`, are those of the whole data, however it was cut into batches.

    - Ray Data: ``sum_counts(data.map_batches(CountBatch("text")).iter_rows())``
    - Spark: ``sum_counts(frame.select("text").mapInArrow(CountBatch("text").each, "counts binary").toLocalIterator())``

    Parameters
    ----------
    column : str
        The column of texts; missing ones count nothing.
    options
        Those of :func:`tokamask.train.count`, by keyword.

    Examples
    --------
    >>> rows = [CountBatch("text")({"text": ["to be", "or not"]}), CountBatch("text")({"text": ["to be"]})]
    >>> sum_counts({"counts": value} for row in rows for value in row["counts"]).total
    6
    """

    def __init__(self, column: str, **options: Any) -> None:
        self.column, self.options = column, options

    def __call__(self, batch: Any) -> Any:
        """One row, ``counts``: a dict of columns gives a dict of columns, a table a table, a record batch a record batch."""
        plain = isinstance(batch, Mapping)
        column = batch[self.column] if plain else batch.column(self.column).to_pylist()
        texts = [str(text) for text in column if text is not None]
        counts = pickle.dumps(train.count(texts, progress=False, **self.options))
        return {"counts": [counts]} if plain else type(batch).from_pydict({"counts": [counts]})

    def each(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The same over an iterator of record batches, as Spark's ``mapInArrow`` calls it."""
        return map(self, batches)


def sum_counts(rows: Iterable[Any]) -> train.PretokenCounts:
    """The counts in the ``counts`` of all rows together; the rows must come from :class:`CountBatch`, as they are unpickled.

    Raises
    ------
    CorpusError
        There is no row, or the rows were counted by different rules.

    Examples
    --------
    >>> sum_counts({"counts": value} for value in CountBatch("text")({"text": ["to be"]})["counts"]).total
    2
    """
    shards = [pickle.loads(bytes(row["counts"])) for row in rows]
    if not shards:
        raise CorpusError("there are no rows of counts")
    while len(shards) > 1:  # in pairs: each addition costs the size of its sum
        shards = [sum(shards[nth : nth + 2]) for nth in range(0, len(shards), 2)]
    counts: train.PretokenCounts = shards[0]
    return counts


def from_arrow(column: Any) -> Ragged:
    """A column of lists of ids as :class:`tokamask.Ragged`, for ``decode_batch``; shares the buffers if it is uint32.

    Raises
    ------
    TypeError
        The column is not of lists, or has missing rows.

    Examples
    --------
    >>> from_arrow(encode_column(tok, texts)).to_lists()  # doctest: +SKIP
    [[392, 827]]
    """
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)) or column.null_count:
        raise TypeError(f"column: expected lists of ids without missing rows, got {column.type}")
    offsets = column.offsets.to_numpy().astype(np.int64, copy=False)
    ids = column.values.to_numpy(zero_copy_only=False).astype(np.uint32, copy=False)
    return Ragged(ids[offsets[0] : offsets[-1]], offsets - offsets[0])
