"""Masks of other trainers: which tokens each of them trains on, from the same records and the same chat template."""
