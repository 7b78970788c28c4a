"""Documents to tokenize: the corpus of the large data where it is present, else text generated from a seed.

Every turn of a benchmark reads documents that no contestant has seen before (`documents(part, turn)`), after
a warm-up on others (`warm_up(part)`). Contestants of one turn read the same documents.
"""

import collections
import functools
import itertools
import json
import pathlib
import random
import sysconfig

from bench.data import unpacked

PARTS = ("english", "multilingual", "code", "json", "logs")
WARM_UP_BYTES = 1_500_000
TURN_BYTES = 500_000
DOCUMENT_CHARS = 6_000


def source() -> str:
    """Names the input for the machine card."""
    return "corpus" if unpacked("corpus_open.tar.xz") else "generated text"


def warm_up(part: str) -> list[str]:
    """About 1.5 MB that come before every turn."""
    return _slice(part, 0, WARM_UP_BYTES)


def documents(part: str, turn: int) -> list[str]:
    """About 0.5 MB in documents of some kilobytes; other documents for every turn."""
    return _slice(part, WARM_UP_BYTES + turn * TURN_BYTES, TURN_BYTES)


def size(texts: list[str]) -> int:
    """UTF-8 bytes."""
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)


def _slice(part: str, start: int, length: int) -> list[str]:
    chosen, position = [], 0
    for text in _all(part):
        position += len(text.encode())
        if position > start:
            chosen.append(text)
        if position >= start + length:
            return chosen
    raise ValueError(f"the part {part!r} has {position} bytes, {start + length} are needed")


@functools.cache
def _all(part: str) -> list[str]:
    corpus = unpacked("corpus_open.tar.xz")
    need = WARM_UP_BYTES + 8 * TURN_BYTES
    if corpus is None:
        return _generate(part, need)
    texts, total = [], 0
    with open(corpus / "open" / f"{part}.jsonl", encoding="utf-8") as lines:
        for line in lines:
            text = json.loads(line)[:100_000]
            texts.append(text)
            total += len(text.encode())
            if total > need:
                break
    return texts


def _generate(part: str, need: int) -> list[str]:
    draw = random.Random(part)
    make = {
        "english": _english,
        "multilingual": _multilingual,
        "code": _code,
        "json": _json,
        "logs": _logs,
    }[part]
    texts, total = [], 0
    for text in make(draw):
        texts.append(text)
        total += len(text.encode())
        if total > need:
            break
    return texts


def _english(draw: random.Random):
    """A chain of word pairs over the language manual that Python carries; one word in twenty is made up."""
    from pydoc_data.topics import topics

    words = " ".join(topics.values()).split(" ")
    after = collections.defaultdict(list)
    for first, second in itertools.pairwise(words):
        after[first].append(second)
    word = words[0]
    while True:
        out: list[str] = []
        while len(out) < DOCUMENT_CHARS // 6:
            word = draw.choice(after[word] or words)
            letters = [*word]
            if draw.random() < 0.05 and word.isalpha():
                draw.shuffle(letters)
            out.append("".join(letters))
        yield " ".join(out)


def _multilingual(draw: random.Random):
    """Words over the letters of seven scripts, some frequent, one in seven new."""
    scripts = [
        ("абвгдежзиклмнопрстуфхцчшыьэюя", " "),
        ("αβγδεζηθικλμνξοπρστυφχψω", " "),
        ("अआइईउऊएकखगघचछजझटठडढणतथदधनपफबभमयरलवशसह", " "),
        ("ابتثجحخدذرزسشصضطظعغفقكلمنهوي", " "),
        ("".join(map(chr, range(0x4E00, 0x5200))), ""),
        ("".join(map(chr, range(0x3042, 0x3094))), ""),
        ("aáàäbcčdeéèfghiíjklmnñoóöpqrsšßtuúüvwxyzž", " "),
    ]

    def word(letters: str) -> str:
        return "".join(draw.choice(letters) for _ in range(draw.randint(2, 9)))

    known = [[word(letters) for _ in range(2000)] for letters, _ in scripts]
    while True:
        script = draw.randrange(len(scripts))
        letters, gap = scripts[script]
        out: list[str] = []
        while len(out) < DOCUMENT_CHARS // 7:
            frequent = known[script][int(len(known[script]) * draw.random() ** 3)]
            out.append(word(letters) if draw.random() < 1 / 7 else frequent)
            if draw.random() < 0.08:
                out.append("." if gap else "。")
        yield gap.join(out)


def _code(draw: random.Random):
    """The sources of Python's own library, shuffled, in pieces."""
    files = sorted(pathlib.Path(sysconfig.get_path("stdlib")).glob("*.py"))
    files += sorted(pathlib.Path(sysconfig.get_path("stdlib")).glob("[a-r]*/*.py"))
    draw.shuffle(files)
    for file in files:
        text = file.read_text(encoding="utf-8", errors="replace")
        for start in range(0, len(text), DOCUMENT_CHARS):
            yield text[start : start + DOCUMENT_CHARS]


def _json(draw: random.Random):
    keys = ["id", "name", "type", "enabled", "createdAt", "description", "parent_id", "tags", "size", "url"]
    while True:
        records = []
        for _ in range(25):
            record: dict[str, object] = {key: draw.randrange(10**6) for key in draw.sample(keys, 4)}
            record["uuid"] = f"{draw.getrandbits(128):032x}"
            record["tags"] = [f"{draw.choice(keys)}-{draw.randrange(50)}" for _ in range(3)]
            record["ratio"] = round(draw.random(), 5)
            records.append(record)
        yield json.dumps(records, indent=draw.choice([None, 2]))


def _logs(draw: random.Random):
    programs = ["kernel", "sshd", "systemd", "nginx", "postgres", "cron"]
    events = ["started", "stopped", "connection closed by peer", "timeout after", "accepted key for", "wrote"]
    while True:
        lines = []
        for _ in range(80):
            time = f"2026-{draw.randint(1, 12):02d}-{draw.randint(1, 28):02d}T{draw.randint(0, 23):02d}:{draw.randint(0, 59):02d}:{draw.random() * 60:09.6f}Z"
            address = ".".join(str(draw.randrange(256)) for _ in range(4))
            lines.append(
                f"{time} host{draw.randrange(9)} {draw.choice(programs)}[{draw.randrange(40000)}]: {draw.choice(events)} {address} 0x{draw.getrandbits(48):012x}"
            )
        yield "\n".join(lines) + "\n"
