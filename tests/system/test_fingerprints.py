"""Fingerprints of models are compared, those of earlier releases too."""

from donod_fast.system.fingerprints import is_same_model

OLD, NEW, OTHER = "a" * 64, "b" * 64, "c" * 64


def test_fingerprints_of_earlier_releases_are_compared_by_their_part() -> None:
    assert is_same_model(f"local:{OLD}:{NEW}", f"local:{OLD}:{NEW}")
    assert is_same_model(f"local:{OLD}", f"local:{OLD}:{NEW}")
    assert is_same_model(f"local:{OLD}:{NEW}", f"local:{OLD}")
    assert is_same_model(f"hub:{OLD}", f"hub:{OLD}") and is_same_model(None, None)


def test_other_models_are_other() -> None:
    for other in (
        f"local:{OLD}:{OTHER}",
        f"local:{OTHER}:{NEW}",
        f"local:{OTHER}",
        f"hub:{OLD}",
        "",
        "local:",
        None,
        1,
    ):
        assert not is_same_model(f"local:{OLD}:{NEW}", other)
        assert not is_same_model(other, f"local:{OLD}:{NEW}")
    assert not is_same_model(f"local:{OLD}", f"local:{OTHER}")
    assert not is_same_model(f"hub:{OLD}", f"hub:{OLD}:{NEW}")
