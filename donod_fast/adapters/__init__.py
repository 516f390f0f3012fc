"""Scoring inside the tools that people already use: one module a host, imported only when it is asked for.

Every host gives batches of rows and takes columns. What they share is here: :mod:`~donod_fast.adapters.options` makes a
scorer's settings of the plain values in a host's configuration, :mod:`~donod_fast.adapters.lazy_scorer` loads the model
once per process, and :mod:`~donod_fast.adapters.columns` names the columns that a host gets.
"""
