"""Training needs TRL."""

import pytest

pytest.importorskip("trl", reason="the extra `train` is not installed")
