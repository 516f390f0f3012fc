"""The program that tries to break out before any other runs; it prints what it could do, or that it is isolated."""

from __future__ import annotations

PROBE = """
import ctypes, fcntl, mmap, os, resource, signal, socket, sys

secret, port = sys.argv[1], int(sys.argv[2])
broken = []
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
arm = os.uname().machine == "aarch64"

def must_fail(what, action):
    try:
        action()
    except (OSError, ValueError):
        return
    broken.append(what)

def call(x86, on_arm, *given):
    if libc.syscall(ctypes.c_long(on_arm if arm else x86), *map(ctypes.c_long, given)) < 0:
        raise OSError(ctypes.get_errno(), "refused")

def reach():
    with socket.create_connection(("127.0.0.1", port), timeout=2):
        pass

must_fail("a file outside can be read", lambda: open(secret).close())
must_fail("the network can be reached", reach)
def write(path):
    open(path, "x").close()
    os.unlink(path)

for folder in ("/", "/program", "/usr", "/etc", os.path.dirname(sys.executable)):
    must_fail(f"{folder} can be written", lambda: write(os.path.join(folder, os.path.basename(secret))))
must_fail("system calls are not filtered", lambda: os.memfd_create("probe"))

# Other processes: those that it sees, and the first of its namespace in any case. Never those of the machine.
others = []
if os.getpid() > 3 or os.getppid() != 1:
    broken.append("it shares the machine's process numbers")
else:
    listed = [int(name) for name in os.listdir("/proc") if name.isdigit()] if os.path.isdir("/proc/self") else []
    others = sorted({1, *listed} - {os.getpid()})
for other in others:
    for name in ("mem", "oom_score_adj", "timerslack_ns", "coredump_filter", "comm"):
        must_fail(f"/proc/{other}/{name} can be written", lambda: open(f"/proc/{other}/{name}", "r+b").close())
    place = ctypes.create_string_buffer(8)
    vector = (ctypes.c_void_p * 2)(ctypes.addressof(place), 8)
    address = ctypes.addressof(vector)
    must_fail(f"process {other} can be read", lambda: call(310, 270, other, address, 1, address, 1, 0))
    must_fail(f"process {other} can be traced", lambda: call(101, 117, 0x4206, other, 0, 0))
    must_fail(f"process {other} can be limited", lambda: resource.prlimit(other, resource.RLIMIT_NICE))
    must_fail(f"process {other} can be moved", lambda: os.sched_setaffinity(other, os.sched_getaffinity(0)))
    must_fail(f"process {other} can be slowed", lambda: os.setpriority(os.PRIO_PROCESS, other, 19))
    must_fail(f"process {other} can be slowed", lambda: call(251, 30, 1, other, 3 << 13))
    if other == 1:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
            try:
                os.kill(1, number)  # this ends the probe if it is heard
            except OSError:
                pass

def last_to_be_killed():
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("0")

must_fail("it need not be the first to be killed", last_to_be_killed)
with open(os.__file__) as shared:
    must_fail("files of the machine can be locked", lambda: fcntl.flock(shared, fcntl.LOCK_SH | fcntl.LOCK_NB))
    must_fail("files of the machine can be locked", lambda: fcntl.lockf(shared, fcntl.LOCK_SH | fcntl.LOCK_NB))
must_fail("it can take memory that nothing counts", lambda: mmap.mmap(-1, 4096))
must_fail("it can queue data in a listening socket", lambda: socket.socket(socket.AF_UNIX))
left, right = socket.socketpair()
must_fail("its sockets can be enlarged", lambda: left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20))
must_fail("its channel leads to the caller's process", lambda: left.getsockopt(socket.SOL_SOCKET, 77))
must_fail("its pipes can be enlarged", lambda: fcntl.fcntl(os.pipe()[1], 1031, 1 << 17))
must_fail("the command line of the kernel can be read", lambda: open("/proc/cmdline").close())
must_fail("the process may change its user", lambda: os.setuid(0))
must_fail("the process may change its root", lambda: os.chroot("."))
with open("probe", "w") as file:
    file.write("scratch works")
print("; ".join(broken) or "isolated")
"""
