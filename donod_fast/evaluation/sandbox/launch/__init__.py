"""Processes between the caller and a sandboxed program: small scripts for a bare interpreter (``-I -S``).

Nothing here imports the rest of the package. ``server`` stays and forks a ``monitor`` for each program, which runs
outside the sandbox; ``namespaces`` and ``bubblewrap`` build the isolation; ``confine`` drops the remaining privileges
before the program is executed (with bubblewrap through ``inside``, in a fresh interpreter, so both import little).
"""
