"""Inputs to records to masked tokens: reading, formats, chat templates, tokenizing and masking."""
