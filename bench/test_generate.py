"""The main job, end to end: a small model writes JSON that matches a schema, with drafts and without. All cores.

There is no rival beside it: other engines read other weights. "no drafts" is tokamask itself, one token a step.
"""

import json

import pytest

from bench.data import ROOT
from bench.rivals import contestants, prepared

SCHEMAS = {
    "person": "Invent a person.",
}


@pytest.mark.parametrize("contestant", contestants("generate"))
@pytest.mark.parametrize("drafts", ["drafts", "no drafts"])
@pytest.mark.parametrize("schema", SCHEMAS)
def test_generate(measure, contestant, schema, drafts, turn):
    if turn > 1:
        pytest.skip("two turns: the text is the same in each")
    text = (ROOT / "examples" / f"{schema}.schema.json").read_text(encoding="utf-8")
    write = prepared(contestant, "generate")
    result = measure(
        lambda: write(SCHEMAS[schema], text, drafts == "drafts"),
        value=lambda done: len(done.ids) / done.seconds,
        unit="tokens/s",
        input=f"{schema}, {drafts}",
        headline=schema == "person",
    )
    json.loads(result.text)
