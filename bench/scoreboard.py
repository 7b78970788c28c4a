"""The scoreboard of grammar masks on real schemas: verdicts, random walks, start-up, masks, memory, one feature at a time.

    python -m bench.scoreboard                                   # every engine that is installed, every section
    python -m bench.scoreboard --engines tokamask --sections timing --schemas 100 --salt today

Each engine runs in a process of its own, section by section. Verdicts are taken on one sample (hash order of the
file names), times on another that a salt draws, so that a new salt is a slice nobody has seen. Times are wall times
of the Python call; above 300 us the thread's own CPU time where that is less, because other work on the machine
would otherwise stand in every p99.9. Time to the first mask is CPU time of the thread, from schema text.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

from bench import features, vocabularies
from bench.data import ROOT, unpacked
from bench.machine import card
from bench.rivals import REGISTRY, prepared

WALL, THREAD = time.perf_counter_ns, time.thread_time_ns
LONGEST = 1200
"""Tokens of a document that are replayed."""
WALK = 400
"""Tokens of a random walk."""
EACH = 4
"""Valid and invalid documents of one schema."""
ENGINES = ("tokamask", "llguidance", "glrmask")
SECTIONS = ("verdicts", "suite", "walks", "timing", "capped", "costs", "features", "exact")
CAPS = (64 << 20, 256 << 10, 64 << 10)
"""Bytes that the rows of one grammar may take: more than any here needs, and less than many."""


def uniformly(allowed: np.ndarray, rng: np.random.Generator) -> int:
    """Each allowed id alike."""
    return allowed[rng.integers(len(allowed))]


def by_rank(allowed: np.ndarray, rng: np.random.Generator) -> int:
    """An id by 1 / (id + 10): ids rise as tokens become rare, so this is nearer to text that a model would write."""
    mass = np.cumsum(1 / (allowed + 10.0))
    return allowed[np.searchsorted(mass, rng.random() * mass[-1])]


LAWS = {"uniform": uniformly, "by rank": by_rank}
"""How a random walk chooses; after 25 tokens what closes something is preferred in either."""


class Clock:
    """Times of one operation in microseconds."""

    def __init__(self):
        self.times = []

    def __call__(self, call, *arguments):
        cpu, wall = THREAD(), WALL()
        result = call(*arguments)
        wall = WALL() - wall
        self.times.append((wall if wall < 300_000 else min(wall, THREAD() - cpu)) / 1e3)
        return result

    def summary(self) -> dict:
        if not self.times:
            return {}
        values = np.asarray(self.times)
        marks = {f"p{q:g}": float(np.quantile(values, q / 100)) for q in (50, 90, 99, 99.9)}
        return {"mean": float(values.mean()), **marks, "max": float(values.max()), "n": len(values)}


class Bench:
    """One engine and the documents."""

    def __init__(self, engine: str, options):
        self.rival = next(rival for rival in REGISTRY if rival.name == engine)
        self.files = vocabularies.load(vocabularies.for_masks()[0])
        tokenizer = next(rival for rival in REGISTRY if rival.name == "tokenizers")
        self.encode = prepared(tokenizer, "encode", self.files)
        self.encode("warm")
        before = THREAD()
        self.engine = self.rival.mask(self.files)
        self.loading = (THREAD() - before) / 1e6
        self.eos = self.files.special[self.files.eos]
        self.options = options

    def ids(self, value) -> list[int]:
        return list(self.encode(json.dumps(value)))

    def sample(self, salt: str, count: int):
        """Files of the sample that have a valid document: name, schema text, [(valid, ids)]."""
        folder = unpacked("json_schema_open.tar.xz") / "open" / "maskbench"
        order = sorted(folder.glob("*.json"), key=lambda p: hashlib.sha256((salt + p.name).encode()).digest())
        found = 0
        for path in order:
            content = json.loads(path.read_text(encoding="utf-8"))
            if found == count:
                return
            if not any(test["valid"] for test in content["tests"]):
                continue
            found += 1
            kept = {True: 0, False: 0}
            tests = []
            for test in content["tests"]:
                kept[test["valid"]] += 1
                if kept[test["valid"]] <= EACH:
                    tests.append((test["valid"], self.ids(test["data"])))
            yield path.stem, content["schema"], [t for t in tests if len(t[1]) <= LONGEST]

    def replay(self, compiled, token_ids, masks=None, commits=None) -> bool:
        """True if every token is allowed and the end after them."""
        masks, commits = masks or Clock(), commits or Clock()
        fill, accept, row = self.engine.start(compiled)
        for token_id in token_ids:
            masks(fill)
            if not row[token_id >> 5] >> (token_id & 31) & 1:
                return False
            commits(accept, token_id)
        fill()
        return bool(row[self.eos >> 5] >> (self.eos & 31) & 1)

    def judge(self, compiled, tests, counts, name, **clocks):
        """Counts right and wrong verdicts; True if all are right."""
        right = True
        for valid, token_ids in tests:
            taken = self.replay(compiled, token_ids, **clocks)
            verdict = ("valid accepted", "OVER") if valid else ("invalid refused", "UNDER")
            counts[verdict[taken != valid]] = counts.get(verdict[taken != valid], 0) + 1
            if taken != valid:
                right = False
                counts.setdefault("wrong", []).append(f"{verdict[1]} {name}")
        return right

    def compile(self, schema, counts, name, **options):
        """The compiled grammar, or None with the reason counted."""
        text = schema if isinstance(schema, str) else json.dumps(schema)
        try:
            return self.engine.compile(text, **options)
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            counts["refused"] = counts.get("refused", 0) + 1
            counts.setdefault("reasons", []).append(f"{name}: {reason[:160]}")
            return None

    # ---- sections

    def verdicts(self) -> dict:
        counts = {"schemas": 0, "compiled": 0, "perfect": 0}
        for name, schema, tests in self.sample("", self.options.schemas):
            counts["schemas"] += 1
            compiled = self.compile(schema, counts, name)
            if compiled is not None:
                counts["compiled"] += 1
                counts["perfect"] += self.judge(compiled, tests, counts, name)
        return counts

    def suite(self) -> dict:
        counts = {"groups": 0, "compiled": 0, "all right": 0}
        options = {}
        if self.rival.name == "tokamask":
            options = {"format": "annotate", "resources": remotes()}
        for path in sorted((unpacked("json_schema_open.tar.xz") / "open" / "suite2020").glob("*.json")):
            content = json.loads(path.read_text(encoding="utf-8"))
            tests = [(test["valid"], self.ids(test["data"])) for test in content["tests"]]
            if not any(valid for valid, _ in tests):
                continue
            counts["groups"] += 1
            compiled = self.compile(content["schema"], counts, path.stem, **options)
            if compiled is not None:
                counts["compiled"] += 1
                counts["all right"] += self.judge(compiled, tests, counts, path.stem)
        return counts

    def walks(self) -> dict:
        """Random texts: by two laws, and for an engine that leaves the order of properties open also in order.

        Where properties may come in any order and others may be added, a text goes on until chance has written every
        required name: engines with a fixed order are compared with ours in order.
        """
        out = {}
        for law in LAWS:
            out[law] = self.walk_all(law, {})
            if self.rival.name == "tokamask":
                out[f"{law}, properties in order"] = self.walk_all(law, {"property_order": "schema"})
        return out

    def walk_all(self, law: str, options: dict) -> dict:
        counts = {"schemas": 0, "ended valid": 0, "ended INVALID": 0, "DEAD END": 0, "too long": 0}
        closing = [self.eos] + [i for i, t in enumerate(self.files.tokens) if t and set(t) <= set(b'"]}')]
        waits = {"required names were missing": 0, "other": 0}
        for name, schema, _ in self.sample("walks", self.options.walks):
            compiled = self.compile(schema, {}, name, **options)
            if compiled is None:
                continue
            valid = validator(schema)
            if valid is None:
                continue
            counts["schemas"] += 1
            for seed in range(3):
                rng = np.random.default_rng(list(f"{name}{seed}".encode()))
                end, document = self.wander(compiled, rng, closing, LAWS[law])
                if end == "ended":
                    end = "ended valid" if valid(document) else "ended INVALID"
                counts[end] += 1
                if end == "too long":
                    waits["required names were missing" if lacks_names(schema, document) else "other"] += 1
                if end in ("ended INVALID", "DEAD END"):
                    counts.setdefault("wrong", []).append(
                        f"{end} {name}: {document[-300:].decode(errors='replace')}"
                    )
        done = counts["ended valid"] + counts["ended INVALID"] + counts["DEAD END"]
        counts["percent that end"] = round(100 * done / max(done + counts["too long"], 1), 1)
        return {**counts, **{f"too long, {why}": count for why, count in waits.items()}}

    def wander(self, compiled, rng, closing, law):
        fill, accept, row = self.engine.start(compiled)
        document = b""
        for step in range(WALK):
            fill()
            prefer = [i for i in closing if row[i >> 5] >> (i & 31) & 1] if step >= 25 else []
            if prefer and rng.random() < 0.7:
                token_id = self.eos if self.eos in prefer else prefer[rng.integers(len(prefer))]
            else:
                allowed = np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little"))
                if not len(allowed):
                    return "DEAD END", document
                token_id = int(law(allowed, rng))
            if token_id == self.eos:
                return "ended", document
            accept(token_id)
            document += self.files.tokens[token_id]
        return "too long", document

    def timing(self) -> dict:
        first, masks, commits = Clock(), Clock(), Clock()
        counts, slow, tokens = {}, [], 0
        work = list(self.sample(self.options.salt, self.options.schemas))
        self.engine_warm()
        process = time.process_time_ns()
        for name, schema, tests in work:
            text = json.dumps(schema)
            before = THREAD()
            compiled = self.compile(text, counts, name)
            if compiled is not None:
                self.engine.start(compiled)[0]()
                first.times.append((THREAD() - before) / 1e3)
                mark = len(masks.times)
                self.judge(compiled, tests, counts, name, masks=masks, commits=commits)
                worst = max(masks.times[mark:], default=0)
                if first.times[-1] > 2_000 or worst > 1_000:
                    slow.append(f"{name}: first mask {first.times[-1]:.0f} us, worst mask {worst:.0f} us")
        process = (time.process_time_ns() - process) / 1e3
        tokens = max(len(masks.times), 1)
        both = {"mean": (sum(masks.times) + sum(commits.times)) / tokens}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        reasons = {key: counts.get(key) for key in ("refused", "OVER", "UNDER") if counts.get(key)}
        return {
            "loading the vocabulary (CPU ms)": {"mean": self.loading},
            "first mask (CPU us)": first.summary(),
            "mask (us)": masks.summary(),
            "commit (us)": commits.summary(),
            "mask and commit (us)": both,
            "process CPU per token (us)": {"mean": process / tokens},
            "peak memory (MB)": {"mean": peak},
            "verdicts": reasons,
            "slow": slow,
        }

    def engine_warm(self):
        """One mask of the empty schema: what is computed once for a vocabulary is not any schema's."""
        before = THREAD()
        self.engine.start(self.engine.compile("{}"))[0]()
        self.loading += (THREAD() - before) / 1e6

    def capped(self) -> dict:
        """Masks of three rounds over the documents, with rows that may take ever less memory."""
        if self.rival.name != "tokamask":
            return {}
        work, out = list(self.sample(self.options.salt, self.options.schemas // 2)), {}
        self.engine_warm()
        for cap in CAPS:
            self.engine.limits = self.engine.package.Limits(row_bytes=cap)
            rounds, most = [Clock(), Clock(), Clock()], 0
            for name, schema, tests in work:
                compiled = self.compile(schema, {}, name)
                for clock in rounds if compiled is not None else ():
                    for _, token_ids in tests:
                        self.replay(compiled, token_ids, masks=clock)
                most = max(most, compiled.memory_bytes if compiled is not None else 0)
            for i, clock in enumerate(rounds):
                out[f"rows of {cap >> 10} kB, round {i + 1} (us)"] = clock.summary()
            out[f"rows of {cap >> 10} kB, most memory of a grammar (MB)"] = {"mean": most / 1e6}
        return out

    def costs(self) -> dict:
        """The small operations on one state inside a string, in a loop: least of five turns."""
        document = '{"name": "John Smith", "age": 12, "notes": ["a", "b"]}'
        schema = features.closed(
            {"name": {"type": "string"}, "age": {"type": "integer"}, "notes": {"type": "array"}}
        )
        compiled = self.engine.compile(json.dumps(schema))
        operations = self.engine.small(compiled, list(self.encode(document)), 7)
        out = {}
        for name, call in operations.items():
            call()
            best = min(_loop(call, 2000) for _ in range(5))
            out[f"{name} (us)"] = {"mean": best}
        return out

    def features(self) -> dict:
        out = {}
        self.engine_warm()
        for name, (schema, right, wrong) in features.rows().items():
            tests = [(True, self.ids(d)) for d in right] + [(False, self.ids(d)) for d in wrong]
            counts, masks = {}, Clock()
            text = json.dumps(schema)
            before = THREAD()
            compiled = self.compile(text, counts, name)
            if compiled is not None:
                self.engine.start(compiled)[0]()
            spent = (THREAD() - before) / 1e6
            if compiled is not None:
                self.judge(compiled, tests, counts, name, masks=masks)
            got = masks.summary()
            out[name] = {
                "first mask ms": spent,
                "mean": got.get("mean"),
                "max": got.get("max"),
                "wrong": counts.get("OVER", 0) + counts.get("UNDER", 0),
                "refused": (counts.get("reasons") or [""])[0].partition(": ")[2],
            }
        return out

    def exact(self) -> dict:
        """Rows served by tables against a plain walk of the whole trie, on the states of one document a schema."""
        counts = {"schemas": 0, "states": 0, "DIFFERENT": 0}
        if self.rival.name != "tokamask":
            return {}
        for name, schema, tests in self.sample(self.options.salt, self.options.exact):
            compiled = self.compile(schema, {}, name)
            documents = [ids for valid, ids in tests if valid]
            if compiled is None or not documents:
                continue
            counts["schemas"] += 1
            matcher = compiled.matcher()
            for step, token_id in enumerate(max(documents, key=len)):
                # Long documents repeat their states: every one at first, then one in eight.
                if step < 40 or step % 8 == 0:
                    counts["states"] += 1
                    served, plain = matcher.mask_row(), matcher.plain_row()
                    if not np.array_equal(served, plain):
                        counts["DIFFERENT"] += 1
                        counts.setdefault("wrong", []).append(f"{name} at token {step}")
                if not matcher.is_allowed(token_id):
                    break
                matcher.accept(token_id)
        return counts


def _loop(call, count: int) -> float:
    start = WALL()
    for _ in range(count):
        call()
    return (WALL() - start) / 1e3 / count


def remotes() -> dict:
    """The documents that the test suite refers to."""
    folder = unpacked("json_schema_remotes.tar.xz")
    root = next(
        path
        for path in (folder, *folder.rglob("*"))
        if (path.is_dir() and path.name == "remotes") or (path / "draft2020-12").is_dir()
    )
    found = {}
    for path in root.rglob("*.json"):
        found[f"http://localhost:1234/{path.relative_to(root).as_posix()}"] = json.loads(
            path.read_text(encoding="utf-8")
        )
    return found


def lacks_names(schema, document: bytes) -> bool:
    """True if a text that did not end lacks a name that its outermost object requires."""
    required = schema.get("required", []) if isinstance(schema, dict) else []
    text = document.decode(errors="replace")
    return any(isinstance(name, str) and f"{json.dumps(name)}" not in text for name in required)


def validator(schema):
    """A function from bytes to bool by the package jsonschema with formats asserted; None if it cannot read the schema."""
    import jsonschema

    try:
        kind = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
        kind.check_schema(schema)
        checker = kind(schema, format_checker=jsonschema.FormatChecker())
        checker.is_valid({})
    except Exception:
        return None

    def valid(document: bytes) -> bool:
        try:
            return checker.is_valid(json.loads(document))
        except Exception:
            return False

    return valid


# ---- the parent


def work(engine: str, sections: list[str], options) -> dict:
    """Runs the sections of one engine, each in a process of its own."""
    found = {}
    for section in sections:
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / "out.json"
            command = [sys.executable, "-m", "bench.scoreboard", "--worker", engine, section, str(out)]
            for name in ("schemas", "walks", "exact", "salt"):
                command += [f"--{name}", str(getattr(options, name))]
            try:
                done = subprocess.run(command, cwd=ROOT, timeout=options.patience, check=False)
                found[section] = (
                    json.loads(out.read_text()) if done.returncode == 0 else {"failed": done.returncode}
                )
            except subprocess.TimeoutExpired:
                found[section] = {"failed": f"over {options.patience} s"}
    return found


def show(results: dict, lists: int) -> None:
    """Prints one table a section."""
    for section in SECTIONS:
        rows = {engine: r[section] for engine, r in results.items() if r.get(section)}
        if not rows:
            continue
        print(f"\n== {section}")
        if section == "features":
            for name in features.rows():
                cells = []
                for engine, r in rows.items():
                    if name not in r:
                        cells.append(f"{engine}: -")
                        continue
                    row = r[name]
                    if row["refused"]:
                        cells.append(
                            f"{engine}: {row['first mask ms']:.1f} ms, refused {row['refused'][:70]}"
                        )
                    else:
                        mean = f"{row['mean']:.1f} / {row['max']:.0f} us" if row["mean"] is not None else ""
                        wrong = f" WRONG {row['wrong']}" if row["wrong"] else ""
                        cells.append(f"{engine}: {row['first mask ms']:.2f} ms {mean}{wrong}")
                print(f"{name:28}", " | ".join(cells))
            continue
        for engine, r in rows.items():
            print(f"{engine}:")
            for name, value in r.items():
                if isinstance(value, dict):
                    print(
                        f"   {name:34}",
                        "  ".join(
                            f"{k} {v:,.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in value.items()
                        ),
                    )
                elif isinstance(value, list):
                    print(f"   {name} ({len(value)}):")
                    for line in value[:lists]:
                        print("      ", line)
                else:
                    print(f"   {name:34} {value}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", nargs="*", default=ENGINES)
    parser.add_argument("--sections", nargs="*", default=SECTIONS, choices=SECTIONS)
    parser.add_argument("--schemas", type=int, default=400, help="schemas for verdicts and for times")
    parser.add_argument("--walks", type=int, default=220, help="schemas for random walks")
    parser.add_argument(
        "--exact", type=int, default=300, help="schemas for the comparison with the plain walk"
    )
    parser.add_argument("--salt", default="fresh", help="draws the slice that times are measured on")
    parser.add_argument("--patience", type=float, default=1800, help="seconds for one section of one engine")
    parser.add_argument("--lists", type=int, default=12, help="lines printed of each list")
    parser.add_argument("--json", help="where to write everything, with the machine and the versions")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        engine, section, out = options.worker
        pathlib.Path(out).write_text(json.dumps(getattr(Bench(engine, options), section)()))
        return
    if unpacked("json_schema_open.tar.xz") is None:
        sys.exit(
            "the scoreboard needs the large data: json_schema_open.tar.xz under ../shared/data (or TOKAMASK_SHARED)"
        )
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    present = {rival.name: rival for rival in REGISTRY}
    results = {}
    for engine in options.engines:
        absence = present[engine].absence
        if absence:
            print(f"{engine}: {absence}")
            continue
        print(f"... {engine} {present[engine].version}", file=sys.stderr, flush=True)
        results[engine] = work(engine, options.sections, options)
    show(results, options.lists)
    if options.json:
        asked = {name: getattr(options, name) for name in ("schemas", "walks", "exact", "salt")}
        versions = {engine: present[engine].version for engine in results}
        record = {"machine": card(), "asked": asked, "versions": versions, "results": results}
        pathlib.Path(options.json).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
