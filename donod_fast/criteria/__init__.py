"""Criteria beside DON and NOD, from the same forward pass: see ``base.py`` for what one is, ``registry.py`` for all."""
