"""Real schemas and their documents: verdicts agree with the labels, and rows served from tables are those of a plain walk."""

import hashlib
import json

import numpy as np
import pytest

import tokamask as tm

SCHEMAS = 40
"""How many, by hash of the file name."""


@pytest.fixture(scope="module")
def cases(unpacked):
    paths = (unpacked("json_schema_open.tar.xz") / "open" / "maskbench").glob("*.json")
    chosen = []
    for path in sorted(paths, key=lambda p: hashlib.sha256(b"tests" + p.name.encode()).digest()):
        content = json.loads(path.read_text(encoding="utf-8"))
        if any(test["valid"] for test in content["tests"]) and len(json.dumps(content["schema"])) < 20_000:
            chosen.append((path.stem, content))
        if len(chosen) == SCHEMAS:
            return chosen
    return chosen


def test_verdicts_and_rows(cases):
    tokenizer = tm.Tokenizer.default()
    vocabulary = tokenizer.vocabulary
    wrong, refused, unplaced, different, states = [], [], [], [], 0
    for name, content in cases:
        try:
            compiled = tm.compile(tm.Grammar.json_schema(content["schema"]), vocabulary)
        except tm.errors.UnsupportedKeywordError:
            refused.append(name)
            continue
        except tm.errors.GrammarError as error:
            refused.append(name)
            unplaced += [name] if error.json_pointer is None else []
            continue
        for test in content["tests"][:4]:
            ids = tokenizer.encode(json.dumps(test["data"]))
            matcher = compiled.matcher()
            for i, token in enumerate(ids):
                row = matcher.mask_row()
                if i % 16 == 0 and states < 250:
                    states += 1
                    if not np.array_equal(row, matcher.plain_row()):
                        different.append((name, i))
                if not row[token >> 5] >> (token & 31) & 1:
                    break
                matcher.accept(token)
            else:
                i = len(ids)
            if (i == len(ids) and matcher.is_accepting()) != test["valid"]:
                wrong.append((name, test["valid"]))
    assert not unplaced, "refused without naming the place"
    assert not different
    assert not wrong
    assert len(refused) <= SCHEMAS // 20
    assert states > 100
