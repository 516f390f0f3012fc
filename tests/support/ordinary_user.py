"""Run as an ordinary user by ``test_sandbox_isolation.py``: the probe, and limits that depend on the user."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from sandbox_runs import processes_with, run, wait_for  # noqa: E402

from donod_fast.evaluation.sandbox import Isolation, Limits, Sandbox  # noqa: E402
from donod_fast.evaluation.sandbox.isolation import probe  # noqa: E402

FORKS = """
import os, time
made = 0
try:
    while made < 500:
        if os.fork() == 0:
            time.sleep(1000)
        made += 1
except BlockingIOError:
    print(made)
"""
BOMB = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass"
HOARD = "import os, time\nfor _ in range(3): os.fork()\nheld = bytearray(b'x') * (60 << 20)\ntime.sleep(1000)"

kind = Isolation(sys.argv[1])
sandbox = Sandbox(kind, Limits(seconds=20))
marker = secrets.token_hex(16)
print("user", os.getuid())
print("probe", probe(kind))
done = run(sandbox, FORKS, marker, processes=10)
print(done.how, done.code, done.stdout.decode().strip())
print(run(sandbox, BOMB, marker, seconds=0.5).how)
print(run(sandbox, HOARD, marker, memory=200 << 20).how)
with sandbox.start({"main.py": FORKS + "time.sleep(1000)"}, ["{python}", "{program}/main.py", marker]) as process:
    seen = wait_for(lambda: len(processes_with(marker)) > 5)
print(process.finish().how, seen)
print("left", processes_with(marker))
