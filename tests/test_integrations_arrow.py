"""Arrow columns in, columns of ids out; the batch function of datasets, Ray and Spark."""

import os
import pickle
import shutil
import sys

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


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray, about itself
def test_counts_on_ray_give_the_merges_of_the_whole():
    data = pytest.importorskip("ray.data", reason="ray is not installed")
    rule = {"pre_tokenizer": "superbpe", "runs": True}
    dataset = data.from_items([{"text": text} for text in DOCUMENTS]).repartition(5)
    counts = sum_counts(dataset.map_batches(CountBatch("text", **rule), batch_size=9).iter_rows())
    whole = tm.train.count(DOCUMENTS, progress=False, **rule)
    assert counts == whole
    assert trained(counts) == trained(whole)


@pytest.fixture(scope="module")
def spark():
    """A session of two local workers; Spark is Java, and says on stderr what it does."""
    sql = pytest.importorskip("pyspark.sql", reason="pyspark is not installed")
    if shutil.which("java") is None:
        pytest.skip("Spark needs a Java runtime")
    settings = {
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "2",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.executorEnv.PYTHONPATH": os.pathsep.join(sys.path),
        "spark.pyspark.python": sys.executable,
        "spark.pyspark.driver.python": sys.executable,
    }
    builder = sql.SparkSession.builder.master("local[2]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    yield session
    session.stop()


@pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas")
def test_counts_on_spark_give_the_merges_of_the_whole(spark):
    rule = {"pre_tokenizer": "superbpe", "runs": True}
    frame = spark.createDataFrame([(text,) for text in DOCUMENTS], "text string").repartition(5)
    rows = frame.mapInArrow(CountBatch("text", **rule).each, "counts binary").toLocalIterator()
    counts = sum_counts(row.asDict() for row in rows)
    whole = tm.train.count(DOCUMENTS, progress=False, **rule)
    assert counts == whole
    assert trained(counts) == trained(whole)


@pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas")
def test_spark_encodes_as_a_call_does(spark, tok):
    frame = spark.createDataFrame([(text,) for text in TEXTS], "text string").repartition(3)
    rows = frame.mapInArrow(TokenizeBatch(tok, "text").each, "text string, input_ids array<int>").collect()
    assert sorted((row.text, list(row.input_ids)) for row in rows) == sorted(
        (text, tok.encode(text)) for text in TEXTS
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray, about itself
def test_ray_encodes_as_a_call_does(tok):
    data = pytest.importorskip("ray.data", reason="ray is not installed")
    dataset = data.from_items([{"text": text} for text in TEXTS]).repartition(2)
    rows = dataset.map_batches(TokenizeBatch(tok, "text"), batch_format="pyarrow").take_all()
    assert sorted((row["text"], list(row["input_ids"])) for row in rows) == sorted(
        (text, tok.encode(text)) for text in TEXTS
    )


def test_datasets_encodes_as_a_call_does(tok):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    dataset = datasets.Dataset.from_dict({"text": TEXTS})
    mapped = dataset.map(TokenizeBatch(tok, "text"), batched=True, batch_size=3)
    assert mapped["input_ids"][:] == [tok.encode(text) for text in TEXTS]
    arrow = dataset.with_format("arrow").map(TokenizeBatch(tok, "text"), batched=True, batch_size=3)
    assert arrow.with_format(None)["input_ids"][:] == [tok.encode(text) for text in TEXTS]
