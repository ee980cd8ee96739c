"""Runs that may be killed, each in a process of its own: forked one after another from one that has imported what they need, once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# after the imports and a function ``run(folder, dies_at)`` of the script itself
_EACH = """
import json, os, sys
from pathlib import Path
import torch._dynamo  # an optimizer imports it at its first step: here once, and not in every run
seen = []
for folder, dies_at in json.loads(sys.argv[1]):
    child = os.fork()
    if child == 0:
        run(Path(folder), dies_at)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    seen.append([code, sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file())])
print(json.dumps(seen))
"""


def outcomes(script: str, runs: list[tuple[Path, int]]) -> list[tuple[int, set[str]]]:
    """Exit code of each run, and the files that its folder then held. One thread each: the last bit of a matmul depends on it."""
    given = json.dumps([[str(folder), dies_at] for folder, dies_at in runs])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run([sys.executable, "-c", script + _EACH, given], cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    return [(code, set(files)) for code, files in json.loads(done.stdout.splitlines()[-1])]
