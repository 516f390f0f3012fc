"""What runs between the caller and a sandboxed program: small scripts for a bare interpreter (``-I -S``).

Nothing here imports the rest of the package. ``server`` stays and forks a ``monitor`` for each program, which stands
outside the sandbox; ``namespaces`` and ``bubblewrap`` build the walls; ``confine`` takes the last rights away before
the program is executed (under bubblewrap by way of ``inside``, in a fresh interpreter, so both import little).
"""
