"""Processes between the caller and a sandboxed program: small scripts for a bare interpreter (``-I -S``).

Nothing here imports the rest of the package. ``server`` stays and forks a ``monitor`` for each program, which runs
outside the sandbox and counts with ``processes``; ``namespaces`` and ``bubblewrap`` build the isolation. ``first`` is
the first process inside (with bubblewrap through ``inside``, in a fresh interpreter, so both import little).
``confine`` drops the remaining privileges before the program is executed. ``calls`` lists the system calls that it may
use, of which ``filters`` makes a filter.
"""
