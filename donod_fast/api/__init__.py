"""The Python interface: a ``Scorer`` whose scores are an object that ranks, selects, compares and reports."""
