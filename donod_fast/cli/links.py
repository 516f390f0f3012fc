"""Links in help texts."""

# PLACEHOLDER: the project has no public address yet. pyproject.toml has the same one.
PAGES = "https://github.com/OWNER/donod_fast"

__all__ = ["PAGES"]
