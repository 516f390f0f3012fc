"""Between the two passes: the constants of TOPSIS over all rows that pass one scored.    python constants.py"""

import json
from pathlib import Path

import donod_fast

files = sorted(Path("out/scored").glob("*"))
stats = [json.loads(line)["__dj__stats__"] for file in files for line in file.read_text("utf-8").splitlines()]
donod_fast.topsis_constants(stats, keep=(0.3,)).save("out/constants.json")
print(f"constants of {len(stats):,} rows in out/constants.json")
