"""Compare fingerprints of models, those of earlier releases among them."""

from __future__ import annotations

LOCAL = "local"


def is_same_model(one: object, other: object) -> bool:
    """Whether two fingerprints are of the same model.

    That of a folder is ``local:OLD:NEW``. Earlier releases wrote ``local:OLD`` alone, which covers the config and
    the ends of the weights; it is compared with the same part of the other.
    """
    if one == other:
        return True
    if not isinstance(one, str) or not isinstance(other, str):
        return False
    a, b = one.split(":"), other.split(":")
    return a[0] == b[0] == LOCAL and {len(a), len(b)} == {2, 3} and a[1] == b[1]


__all__ = ["LOCAL", "is_same_model"]
