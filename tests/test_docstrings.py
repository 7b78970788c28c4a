"""Every public name has a docstring with an example, and the examples run."""

import doctest
import importlib
import inspect
import types

import numpy as np
import pytest

import tokamask as tm

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def public_objects() -> dict[str, object]:
    """The names of the package and of its public submodules, by dotted name."""
    found: dict[str, object] = {}
    for name in tm.__all__:
        value = getattr(tm, name)
        if isinstance(value, types.ModuleType):
            for inner in getattr(value, "__all__", []):
                found[f"{name}.{inner}"] = getattr(value, inner)
        elif not name.startswith("__"):
            found[name] = value
    return found


def members(name: str, value: object) -> dict[str, object]:
    """The object and, of a class, its own public methods and properties."""
    found = {name: value}
    if inspect.isclass(value):
        for inner, member in vars(value).items():
            if isinstance(member, types.MemberDescriptorType):
                continue  # a slot: the docstring of the class speaks of it
            if not inner.startswith("_") and (callable(member) or inspect.isdatadescriptor(member)):
                found[f"{name}.{inner}"] = member
            elif not inner.startswith("_") and isinstance(member, classmethod | staticmethod):
                found[f"{name}.{inner}"] = member.__func__
    return found


PUBLIC = public_objects()
# Sorted: the order of a compiled class's members differs from process to process.
MEMBERS = dict(
    sorted(
        ((k, v) for name, value in PUBLIC.items() for k, v in members(name, value).items()),
        key=lambda kv: kv[0],
    )
)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_have_an_example(name):
    value = PUBLIC[name]
    text = inspect.getdoc(value) or ""
    assert text, f"{name} has no docstring"
    if not (inspect.isclass(value) and issubclass(value, Exception)):
        examples = [k for k, v in members(name, value).items() if ">>> " in (inspect.getdoc(v) or "")]
        assert examples, f"neither {name} nor one of its methods shows an example"


@pytest.mark.parametrize("name", MEMBERS)
def test_members_are_documented(name):
    assert inspect.getdoc(MEMBERS[name]), f"{name} has no docstring"


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Where the examples run: it holds the file that they read, a small ``tokenizer.json``."""
    import tokenizers as hf

    path = tmp_path_factory.mktemp("examples")
    tokenizer = hf.Tokenizer(hf.models.BPE())
    tokenizer.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = hf.decoders.ByteLevel()
    alphabet = sorted(hf.pre_tokenizers.ByteLevel.alphabet())
    trainer = hf.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(["to be or not to be, that is the question"] * 4, trainer)
    tokenizer.save(str(path / "tokenizer.json"))
    return path


@pytest.mark.parametrize("name", [k for k, v in MEMBERS.items() if ">>> " in (inspect.getdoc(v) or "")])
def test_examples_run(name, request, folder, monkeypatch):
    monkeypatch.chdir(folder)
    text = inspect.getdoc(MEMBERS[name]) or ""
    names = {**vars(tm), "tm": tm, "np": np}
    if "find_model" in text or "smollm2" in text:
        request.getfixturevalue("smollm2_gguf")  # skips where the model is absent
        importlib.import_module("tokamask.demo")
    test = doctest.DocTestParser().get_doctest(text, names, name, None, 0)
    out: list[str] = []
    failed, _ = doctest.DocTestRunner(optionflags=FLAGS, verbose=False).run(test, out=out.append)
    assert not failed, "".join(out)
