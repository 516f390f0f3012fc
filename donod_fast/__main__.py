"""``python -m donod_fast``: the command line ``donod-fast``."""

from donod_fast.cli import main

if __name__ == "__main__":
    main()
