"""Self-contained HTML pages: the report of a scores folder, and the pages of other commands."""
