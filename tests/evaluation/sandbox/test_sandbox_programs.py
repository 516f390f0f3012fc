"""What correct programs use works inside: threads, processes, files, signals, child programs, recursion."""

from __future__ import annotations

import pytest
from sandbox_runs import output

from donod_fast.evaluation.sandbox import Sandbox

PROGRAMS = {
    "a pool of threads": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(8) as pool: print(sum(pool.map(abs, range(-9, 1))))",
        "45",
    ),
    "a pool of processes": (
        "from multiprocessing import Pool\nwith Pool(4) as pool: print(sum(pool.map(abs, range(-9, 1))))",
        "45",
    ),
    "an executor of processes": (
        "from concurrent.futures import ProcessPoolExecutor\n"
        "with ProcessPoolExecutor(4) as pool: print(sum(pool.map(abs, range(-9, 1))))",
        "45",
    ),
    "a process that is spawned": (
        "import multiprocessing\ndef put(queue): queue.put(5)\nif __name__ == '__main__':\n"
        "  context = multiprocessing.get_context('spawn')\n  queue = context.Queue()\n"
        "  process = context.Process(target=put, args=(queue,))\n  process.start()\n  print(queue.get())\n"
        "  process.join()",
        "5",
    ),
    "a queue with much in it": (
        "import multiprocessing\ndef put(queue): queue.put(list(range(100_000)))\nqueue = multiprocessing.Queue()\n"
        "process = multiprocessing.Process(target=put, args=(queue,))\nprocess.start()\nprint(len(queue.get()))\n"
        "process.join()",
        "100000",
    ),
    "a shared value and a lock": (
        "import multiprocessing\nvalue = multiprocessing.Value('i', 0)\ndef add():\n"
        "  with value.get_lock(): value.value += 1\n"
        "processes = [multiprocessing.Process(target=add) for _ in range(4)]\n"
        "for process in processes: process.start()\nfor process in processes: process.join()\nprint(value.value)",
        "4",
    ),
    "shared memory with a name": (
        "from multiprocessing.shared_memory import SharedMemory\none = SharedMemory(create=True, size=1 << 20)\n"
        "one.buf[0] = 7\nother = SharedMemory(one.name)\nprint(other.buf[0])\nother.close()\none.close()\n"
        "one.unlink()",
        "7",
    ),
    "asyncio": (
        "import asyncio\nasync def main():\n  await asyncio.sleep(0.01)\n"
        "  child = await asyncio.create_subprocess_exec('/bin/echo', 'hi', stdout=-1)\n"
        "  return (await child.communicate())[0].decode()\nprint(asyncio.run(main()))",
        "hi",
    ),
    "child programs": (
        "import subprocess, sys\n"
        "print(subprocess.run([sys.executable, '-c', 'print(4)'], capture_output=True, text=True).stdout.strip(),\n"
        '  subprocess.run(\'echo b a | tr " " "\\\\n'
        "\" | sort | head -n 1', shell=True, capture_output=True).stdout)",
        "4 b'a\\n'",
    ),
    "temporary files": (
        "import os, shutil, tempfile\nwith tempfile.TemporaryDirectory() as folder:\n"
        "  open(folder + '/a', 'w').write('x' * 100)\n  shutil.copy2(folder + '/a', folder + '/b')\n"
        "  shutil.copytree(folder, folder + 'c')\n  shutil.make_archive('z', 'zip', folder)\n"
        "  with tempfile.NamedTemporaryFile() as file:\n    file.write(b'x')\n    file.flush()\n"
        "    os.fsync(file.fileno())\n  print(sorted(os.listdir(folder)))",
        "['a', 'b']",
    ),
    "deep recursion": (
        "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(256 << 20)\n"
        "def depth(n): return 0 if n == 0 else 1 + depth(n - 1)\nfound = []\n"
        "thread = threading.Thread(target=lambda: found.append(depth(50_000)))\nthread.start()\nthread.join()\n"
        "print(found)",
        "[50000]",
    ),
    "a data base in memory": (
        "import sqlite3\nbase = sqlite3.connect(':memory:')\nbase.execute('create table a(b)')\n"
        "base.execute('insert into a values(3)')\nprint(list(base.execute('select * from a')))",
        "[(3,)]",
    ),
    "an alarm": (
        "import signal\nsignal.signal(signal.SIGALRM, lambda *given: print('rings'))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.02)\nsignal.pause()",
        "rings",
    ),
    "limits and priority of its own": (
        "import os, resource\nresource.setrlimit(resource.RLIMIT_STACK, (1 << 20, 1 << 20))\n"
        "os.sched_setaffinity(0, os.sched_getaffinity(0))\nbefore = os.nice(0)\n"
        "print(os.nice(1) - before, resource.getrlimit(resource.RLIMIT_STACK)[0])",
        "1 1048576",
    ),
    "foreign functions": (
        "import ctypes, platform, uuid, getpass\n"
        "print(ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 3)(), uuid.uuid4().version,\n"
        "  platform.system(), getpass.getuser())",
        "3 4 Linux sandbox",
    ),
    "zeros from a device": ("print(open('/dev/zero', 'rb').read(3))", "b'\\x00\\x00\\x00'"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_correct_programs_work(name: str, sandbox: Sandbox) -> None:
    text, expected = PROGRAMS[name]
    assert output(sandbox, text) == expected


def test_a_child_program_may_be_started_by_a_large_one(sandbox: Sandbox) -> None:
    """The child shares its parent's memory until it executes its program, which is no second use of it."""
    text = """
        import subprocess, sys
        held = bytearray(b"x") * (110 << 20)
        for _ in range(20):
            subprocess.run(["/bin/true"], check=True)
        print("done")
        """
    assert output(sandbox, text, memory=200 << 20) == "done"
