"""Arrow columns in, columns of ids out; the batch function of datasets, Ray and Spark."""

import pickle

import pytest
from small_tokenizers import small

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")

import tokamask as tm  # noqa: E402
from tokamask.integrations.arrow import (  # noqa: E402
    CountBatch,
    TokenizeBatch,
    encode_column,
    from_arrow,
    sum_counts,
)

TEXTS = ["one two", "", "naïve 你好 <|end|>", "a" * 300]


@pytest.fixture(scope="module")
def tok():
    return small("tiktoken cl100k")


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
def test_columns_of_every_string_type(tok, kind):
    ids = encode_column(tok, pa.array(TEXTS, kind))
    assert ids.type == pa.large_list(pa.uint32())
    assert ids.to_pylist() == [tok.encode(text) for text in TEXTS]
    special = encode_column(tok, pa.array(TEXTS, kind), allowed_special="all")
    assert special.to_pylist() == [tok.encode(text, allowed_special="all") for text in TEXTS]


def test_missing_texts_are_missing_rows(tok):
    column = pa.array(["a b", None, "c", None])
    assert encode_column(tok, column).to_pylist() == [tok.encode("a b"), None, tok.encode("c"), None]


def test_slices_chunks_and_foreign_arrays(tok):
    column = pa.array(TEXTS)
    assert encode_column(tok, column.slice(2, 2)).to_pylist() == [tok.encode(text) for text in TEXTS[2:]]
    chunks = pa.chunked_array([TEXTS[:1], TEXTS[1:]])
    assert encode_column(tok, chunks).to_pylist() == [tok.encode(text) for text in TEXTS]
    assert encode_column(tok, pa.chunked_array([], pa.string())).to_pylist() == []

    class Foreign:
        def __arrow_c_array__(self, schema=None):
            return column.__arrow_c_array__(schema)

    assert encode_column(tok, Foreign()).to_pylist() == [tok.encode(text) for text in TEXTS]
    for wrong in (pa.array([1, 2]), ["a"]):
        with pytest.raises(TypeError, match="column: expected"):
            encode_column(tok, wrong)


def test_ids_share_their_buffer(tok):
    rows = tok.encode_batch(TEXTS)
    column = rows.to_arrow()
    assert column.values.buffers()[1].address == rows.ids.ctypes.data
    again = from_arrow(column)
    assert again == rows
    assert tok.decode_batch(from_arrow(column.slice(2, 1))) == TEXTS[2:3]
    with pytest.raises(TypeError):
        from_arrow(pa.array([1]))


def test_batches_of_every_kind_keep_their_kind(tok):
    function = pickle.loads(pickle.dumps(TokenizeBatch(tok, "text")))
    expected = [tok.encode(text) for text in TEXTS]
    assert function({"text": TEXTS, "n": [1, 2, 3, 4]}) == {
        "text": TEXTS,
        "n": [1, 2, 3, 4],
        "input_ids": expected,
    }
    table = pa.table({"text": TEXTS})
    done = function(table)
    assert isinstance(done, pa.Table)
    assert done["input_ids"].to_pylist() == expected
    batches = list(function.each(iter(table.to_batches())))
    assert isinstance(batches[0], pa.RecordBatch)
    assert batches[0].column("input_ids").to_pylist() == expected
    # The hash that caches of pipelines take of it does not change with use.
    assert pickle.dumps(TokenizeBatch(tok, "text")) == pickle.dumps(TokenizeBatch(tok, "text"))


DOCUMENTS = ["by the way, it is on the way\nof the world", "naïve 你好 12345", "", "it is what it is"] * 20


def trained(counts):
    plain = tm.train.train_bpe(counts, vocab_size=320)[1].tolist()
    return plain, tm.train.train_superbpe(counts, vocab_size=330, transition=300)[1].tolist()


@pytest.mark.parametrize("size", [1, 7, 80])
def test_counts_of_batches_give_the_merges_of_the_whole(size):
    rule = {"pre_tokenizer": "superbpe", "runs": True}
    whole = tm.train.count(DOCUMENTS, progress=False, **rule)
    function = pickle.loads(pickle.dumps(CountBatch("text", **rule)))
    table = pa.table({"text": [*DOCUMENTS, None]})
    rows = [row for batch in table.to_batches(size) for row in function(batch).to_pylist()]
    counts = sum_counts(rows)
    assert counts == whole
    assert trained(counts) == trained(whole)
    with pytest.raises(tm.errors.CorpusError):
        sum_counts([])


def test_counts_on_ray_give_the_merges_of_the_whole():
    data = pytest.importorskip("ray.data", reason="ray is not installed")
    rule = {"pre_tokenizer": "superbpe", "runs": True}
    dataset = data.from_items([{"text": text} for text in DOCUMENTS]).repartition(5)
    counts = sum_counts(dataset.map_batches(CountBatch("text", **rule), batch_size=9).iter_rows())
    whole = tm.train.count(DOCUMENTS, progress=False, **rule)
    assert counts == whole
    assert trained(counts) == trained(whole)
