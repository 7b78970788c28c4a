"""From a tokenizer.json to a tokenizer, by processor time; beside it what the loaded object adds to memory."""

import json
import subprocess
import sys
import time

import pytest

from bench import vocabularies
from bench.data import ROOT
from bench.rivals import contestants

PROBE = """
import json, resource, sys, time
sys.path.insert(0, sys.argv[1])
from bench import vocabularies
from bench.rivals import REGISTRY
rival = next(r for r in REGISTRY if r.name == sys.argv[2])
load = rival.load(vocabularies.load(sys.argv[3]))
def resident():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1e3
rival.version
__import__(rival.needs[0])
before = resident()
start = time.process_time()
kept = load()
print(json.dumps([time.process_time() - start, resident() - before]))
"""


@pytest.mark.parametrize("contestant", contestants("load"))
def test_load(measure, contestant, turn):
    name = vocabularies.names()[0]
    vocabularies.load(name)  # the files exist from here on
    if not contestant.takes(name):
        pytest.skip("it does not read this vocabulary")
    if turn > 2:
        pytest.skip("loading takes long: three turns")

    def run():
        command = [sys.executable, "-c", PROBE, str(ROOT), contestant.name, name]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    measure(
        run,
        value=lambda pair: 1e3 * pair[0],
        also=lambda pair: {"MB": pair[1]},
        unit="ms",
        input=f"tokenizer.json, {name}",
        headline=True,
    )


@pytest.mark.parametrize("contestant", contestants("load_compiled"))
def test_load_compiled(measure, contestant, turn):
    name = vocabularies.names()[0]
    load = contestant.load_compiled(vocabularies.load(name))

    def run():
        start = time.process_time()
        kept = load()
        return time.process_time() - start, kept

    measure(
        run,
        value=lambda pair: 1e3 * pair[0],
        unit="ms",
        input=f"compiled, {name}",
        headline=True,
    )
