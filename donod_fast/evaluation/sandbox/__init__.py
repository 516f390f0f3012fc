"""Run programs written by models as hostile code.

Each program runs in its own process without network. It sees only an interpreter and its libraries (read-only) and
one scratch folder in memory, with an empty environment and limits on time, memory, processes, files and output. When it
ends for any reason, everything that it started is killed.

How to use it::

    isolation = find_isolation()                        # verified by a real probe; SandboxError if there is none
    sandbox = Sandbox(isolation, Limits(seconds=5))     # one for all threads

    done = sandbox.run({"main.py": text}, ["{python}", "{program}/main.py"])
    done.how, done.code, done.stdout                    # "exited", 0, b"…"

    with sandbox.start({"server.py": text}, ["{python}", "{program}/server.py"]) as process:
        process.send(b"a request")                      # frames over a private channel, not stdin or stdout
        answer = process.receive(time.monotonic() + 2, max_bytes=1 << 20)   # Timeout, Ended, TooLarge
    # here everything inside has been killed; process.finish() waits for it to exit instead

Inside, ``{program}`` (``/program``) contains the files, the working folder is the scratch folder (``/scratch``, also
``/tmp``), standard input is empty. ``{python}`` starts without ``site`` (so without ``exit`` and ``quit``), with a
fixed hash seed. The channel is the socket whose descriptor number is in the environment variable ``DONOD_CHANNEL``; a
frame is a 4-byte big-endian length and that many bytes::

    channel = socket.socket(fileno=int(os.environ["DONOD_CHANNEL"]))

Inside there are threads, processes, pools of them, pipes, pairs of sockets, and shared memory with a name. There are
no other sockets, no named pipes, no locks on files and no anonymous shared memory (so no ``multiprocessing.Manager``,
no ``sqlite3`` in a file, no ``mmap.mmap(-1, …)`` unless it is private): nothing bounds them, or they reach the
machine's files. A lock cannot be allowed in scratch alone: the filter sees a descriptor, not its file, and
the read-only trees are the machine's own files, whose locks other programs meet. No canonical solution of HumanEval or
MBPP, with or without EvalPlus, needs any of these.

A program costs some tens of milliseconds to start. From the first program on, one small process of ours
stays to start the others; it exits with the process that it serves.
"""

from __future__ import annotations

from donod_fast.evaluation.sandbox.isolation import find_isolation
from donod_fast.evaluation.sandbox.limits import ChannelError, Ended, Finished, Isolation, Limits, Timeout, TooLarge
from donod_fast.evaluation.sandbox.process import Process
from donod_fast.evaluation.sandbox.sandbox import Sandbox

__all__ = [
    "ChannelError",
    "Ended",
    "Finished",
    "Isolation",
    "Limits",
    "Process",
    "Sandbox",
    "Timeout",
    "TooLarge",
    "find_isolation",
]
