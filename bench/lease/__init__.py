"""Steps of ``bench/first_lease.py``, one module each.

A step runs in its own process (``first_lease.py --step NAME``) and writes a row as soon as it has a number. So a step
that is killed leaves what it had found.
"""
