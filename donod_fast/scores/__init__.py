"""The life of a scores folder: manifest, rows, parts, merging, monitoring and export."""
