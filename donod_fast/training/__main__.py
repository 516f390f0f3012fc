"""``accelerate launch -m donod_fast.training RECIPE …``: the command ``donod-fast train`` in several processes."""

from __future__ import annotations

import sys

from donod_fast.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "train")
    main()
