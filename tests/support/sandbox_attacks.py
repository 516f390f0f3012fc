"""Programs that try to get through the sandbox's walls, by kind.

Each says what it achieved on standard output: ``THROUGH`` and what it did, or ``HELD`` and a number of bytes that it
keeps from the machine (all of them together count). ``END`` is its last line. Nothing here is harmful outside of a
sandbox, except that memory and locks are taken until the program ends.
"""

from __future__ import annotations

from attack_parts import Attack
from memory_attacks import MEMORY_ATTACKS


def _call(name: str, x86: int | None, arm: int | None, *given: str) -> tuple[str, Attack]:
    numbers = ", ".join(map(str, (x86, arm, *given)))
    return f"call: {name}", Attack(f"attempt({name!r}, lambda: call({numbers}))")


_WRITTEN = ("mem", "oom_score_adj", "oom_adj", "timerslack_ns", "coredump_filter", "comm", "autogroup", "sched")
_WRITTEN += ("clear_refs", "attr/current", "uid_map", "setgroups", "timens_offsets", "make-it-fail", "loginuid")
_READ = ("mem", "environ", "maps", "smaps", "pagemap", "stack", "syscall", "auxv", "io", "personality")

PROCESSES = {
    "other processes: written by their files in /proc": Attack(
        f"for one in others():\n  for name in {_WRITTEN}:\n"
        "    attempt(f'opened /proc/{one}/{name} for writing', lambda: open(f'/proc/{one}/{name}', 'r+b').close())"
    ),
    "other processes: read by their files in /proc": Attack(
        f"for one in others():\n  for name in {_READ}:\n"
        "    try:\n"
        "      if open(f'/proc/{one}/{name}', 'rb').read(1): through(f'read /proc/{one}/{name}')\n"
        "    except OSError: pass\n"
        "  for name in ('root/etc', 'cwd', 'fd', 'map_files'):\n"
        "    attempt(f'listed /proc/{one}/{name}', lambda: len(os.listdir(f'/proc/{one}/{name}')))\n"
    ),
    "other processes: memory by system calls": Attack(
        "place = ctypes.create_string_buffer(8)\n"
        "vector = (ctypes.c_void_p * 2)(ctypes.addressof(place), 8)\n"
        "for one in others():\n"
        "  for name, x86, arm in (('readv', 310, 270), ('writev', 311, 271)):\n"
        "    if call(x86, arm, one, vector, 1, vector, 1, 0) >= 0 or ctypes.get_errno() == errno.EFAULT:\n"
        "      through(f'process_vm_{name} {one}')\n"
    ),
    "other processes: traced": Attack(
        "for one in others():\n"
        "  for name, request in (('attach', 16), ('seize', 0x4206)):\n"
        "    attempt(f'ptrace {name} {one}', lambda: call(101, 117, request, one, 0, 0))\n"
        "  attempt(f'kcmp {one}', lambda: call(312, 272, one, os.getpid(), 2, 0, 0))\n"
        "  pidfd = call(434, 434, one, 0)\n"
        "  if pidfd >= 0:\n"
        "    for number in range(8):\n"
        "      attempt(f'descriptor {number} of {one}', lambda: call(438, 438, pidfd, number, 0))\n"
    ),
    "other processes: the caller's, by the channel": Attack(
        "end = socket.socket(fileno=int(os.environ['DONOD_CHANNEL']))\n"
        "for level in range(3):\n  for option in range(100):\n"
        "    before = set(os.listdir('/proc/self/fd')) if os.path.isdir('/proc/self') else set()\n"
        "    value = quietly(lambda: end.getsockopt(level, option, 64))\n"
        "    if value is None: continue\n"
        "    if option in (17, 31, 59): through(f'option {option} says {value}')\n"
        "    if before and set(os.listdir('/proc/self/fd')) - before: through(f'option {option} is a descriptor')\n"
        "    if option == 77: through('a descriptor of the caller')\n"
    ),
    "other processes: limited": Attack(
        "for one in others():\n"
        "  for kind in range(16):\n"
        "    attempt(f'limit {kind} of {one} read', lambda: resource.prlimit(one, kind) and None)\n"
        "    attempt(f'limit {kind} of {one} set', lambda: resource.prlimit(one, kind, (0, 0)) and None)\n"
    ),
    "other processes: scheduled": Attack(
        "class P(ctypes.Structure): _fields_ = [('priority', ctypes.c_int)]\n"
        "for one in others():\n"
        "  attempt(f'affinity of {one}', lambda: os.sched_setaffinity(one, {0}))\n"
        "  attempt(f'nice of {one}', lambda: os.setpriority(os.PRIO_PROCESS, one, 19))\n"
        "  attempt(f'policy of {one}', lambda: os.sched_setscheduler(one, os.SCHED_IDLE, os.sched_param(0)))\n"
        "  attempt(f'i/o priority of {one}', lambda: call(251, 30, 1, one, 3 << 13))\n"
        "  attempt(f'memory moved of {one}', lambda: call(279, 239, one, 0, 0, 0, 0, 2))\n"
        "attempt('nice of the user', lambda: os.setpriority(os.PRIO_USER, os.getuid(), 19))\n"
        "attempt('nice of user 0 (own)', lambda: os.setpriority(os.PRIO_USER, 0, 19))\n"
        "attempt('i/o priority of the user', lambda: call(251, 30, 3, os.getuid(), 3 << 13))\n"
    ),
    "other processes: signalled": Attack(
        "for number in signal.valid_signals():\n"
        "  if number not in (signal.SIGKILL, signal.SIGSTOP): signal.signal(number, signal.SIG_IGN)\n"
        "  for one in others():\n"
        "    for target in (one, -one):\n"
        "      if target != -os.getpgrp() and target != -1: quietly(lambda: os.kill(target, number))\n"
        "    pidfd = call(434, 434, one, 0)\n"
        "    if pidfd >= 0:\n"
        "      call(424, 424, pidfd, int(number), 0, 0)\n"
        "      os.close(pidfd)\n"
        "time.sleep(0.1)\n"
    ),
    "other processes: their fate is shared by a parent": Attack(
        "pid = call(56, 220, 0x8000 | 17, 0, 0, 0, 0)\n"
        "if pid == 0: os._exit(0)\n"
        "attempt('subreaper', lambda: libc.prctl(36, 1, 0, 0, 0))\n"
        "time.sleep(0.05)\n"
    ),
    "first to be killed: made last": Attack(
        "for value in ('-1000', '0', '999'):\n"
        "  for name in ('self', 'thread-self', str(os.getpid())):\n"
        "    def lower():\n"
        "      with open(f'/proc/{name}/oom_score_adj', 'w') as file: file.write(value)\n"
        "    attempt(f'oom_score_adj {value}', lower)\n"
        "if os.path.exists('/proc/self/oom_score_adj'):\n"
        "  score = int(open('/proc/self/oom_score_adj').read())\n"
        "  if score < 1000: through(f'oom_score_adj is {score}')\n"
    ),
    "hidden from what watches: not dumpable": Attack(
        "attempt('PR_SET_DUMPABLE', lambda: libc.prctl(4, 0, 0, 0, 0))\n"
        "attempt('PR_SET_SECCOMP', lambda: libc.prctl(22, 1, 0, 0, 0))\n"
        "attempt('PR_SET_PTRACER', lambda: libc.prctl(0x59616d61, -1, 0, 0, 0))\n"
        "attempt('PR_SET_MM', lambda: libc.prctl(35, 8, 0, 0, 0))\n"
    ),
}

_HIDDEN = """
shown = {"self", "thread-self", "mounts", "net"}
def entries(folder):
    try:
        return os.listdir(folder)
    except OSError:
        return []
known = "cmdline config.gz kallsyms meminfo cpuinfo version locks keys key-users kcore stat vmstat modules".split()
for name in sorted({*entries("/proc"), *known}):
    if name.isdigit() or name in shown:
        continue
    path = "/proc/" + name
    if os.path.isdir(path):
        if entries(path): through(path + " is listed")
        quietly(lambda: (open(path + "/new", "w").close(), through(path + " is written")))
        continue
    def read():
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        if os.read(descriptor, 1): through(path + " is read")
    quietly(read)
for folder in ("/sys", "/run", "/var", "/home", "/root", "/boot", "/dev/pts", "/dev/mqueue", "/dev/hugepages"):
    if entries(folder) and not sys.base_prefix.startswith(folder + "/"): through(folder + " is listed")
devices = "null zero full random urandom stdin stdout stderr fd shm core".split()
for name in entries("/dev"):
    if name not in devices: through("/dev/" + name + " is there")
"""

_ON_SHARED = """
paths = [sys.executable, os.__file__, "/", "/usr/bin", os.path.dirname(os.__file__), "/dev/null", "/dev/zero", "/etc"]
paths += ["/proc", "/proc/self/status", "/etc/ld.so.cache", "/program"]
for path in paths:
    descriptor = quietly(lambda: os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    if descriptor is None:
        continue
    for name in ("LOCK_SH", "LOCK_EX"):
        attempt(f"flock {name} {path}", lambda: fcntl.flock(descriptor, getattr(fcntl, name) | fcntl.LOCK_NB))
    lock = struct.pack("hhllhhi", fcntl.F_RDLCK, 0, 0, 0, 0, 0, 0)
    for name, command in (("F_SETLK", 6), ("F_OFD_SETLK", 37), ("F_SETLKW", 7), ("F_OFD_SETLKW", 38)):
        attempt(f"{name} {path}", lambda: fcntl.fcntl(descriptor, command, lock) and None)
    owned = (("F_SETLEASE", 1024, 0), ("F_NOTIFY", 1026, 4), ("F_SETOWN", 8, 1), ("F_SETSIG", 10, 9))
    for name, command, value in owned:
        attempt(f"{name} {path}", lambda: fcntl.fcntl(descriptor, command, value))
    for name, request in (("FIFREEZE", 0xC0045877), ("FITRIM", 0xC0185879), ("FS_IOC_FIEMAP", 0xC020660B)):
        attempt(f"{name} {path}", lambda: fcntl.ioctl(descriptor, request, bytearray(64)))
    attempt(f"syncfs {path}", lambda: call(306, 267, descriptor))
    attempt(f"xattr {path}", lambda: os.setxattr(path, "user.x", b"x"))
    attempt(f"times {path}", lambda: os.utime(path))
    attempt(f"mode {path}", lambda: os.chmod(path, 0o777))
    os.close(descriptor)
attempt("sync", lambda: call(162, 81))
"""

SHARED = {
    "hidden: what /proc, /sys and /dev tell of the machine": Attack(_HIDDEN),
    "shared with the machine: locks, leases, attributes of files": Attack(_ON_SHARED),
}

CALLS = dict(
    [
        _call("io_setup", 206, 0, "1000", "(ctypes.c_ulong * 1)()"),
        _call("inotify_init1", 294, 26, "0"),
        _call("inotify_init", 253, None),
        _call("fanotify_init", 300, 262, "0x200", "0"),
        _call("add_key", 248, 217, "b'user'", "b'x'", "b'y'", "1", "-3"),
        _call("request_key", 249, 218, "b'user'", "b'x'", "0", "-3"),
        _call("keyctl", 250, 219, "0", "-3", "1"),
        _call("userfaultfd", 323, 282, "1"),
        _call("perf_event_open", 298, 241, "(ctypes.c_char * 128)(1, 0, 0, 0, b'p')", "0", "-1", "-1", "0"),
        _call("bpf", 321, 280, "0", "(ctypes.c_char * 128)()", "64"),
        _call("io_uring_setup", 425, 425, "8", "(ctypes.c_char * 128)()"),
        _call("memfd_create", 319, 279, "b'x'", "0"),
        _call("memfd_secret", 447, 447, "0"),
        _call("shmget", 29, 194, "0", "4096", "0o1600"),
        _call("msgget", 68, 186, "0", "0o1600"),
        _call("semget", 64, 190, "0", "1", "0o1600"),
        _call("mq_open", 240, 180, "b'x'", "0o102", "0o600", "0"),
        _call("unshare user", 272, 97, "0x10000000"),
        _call("unshare nothing", 272, 97, "0"),
        _call("seccomp", 317, 277, "2", "0", "(ctypes.c_char * 8)()"),
        _call("landlock_create_ruleset", 444, 444, "0", "0", "1"),
        _call("personality", 135, 92, "0x0040000"),
        _call("set_mempolicy", 238, 237, "0", "0", "0"),
        _call("mlock2", 325, 284, "(ctypes.c_char * 1)()", "1", "0"),
        _call("mlockall", 151, 230, "4"),
        _call("vmsplice", 278, 75, "1", "(ctypes.c_ulong * 2)()", "0", "0"),
        _call("tee", 276, 77, "0", "1", "0", "0"),
        _call("adjtimex", 159, 171, "(ctypes.c_char * 512)()"),
        _call("clock_adjtime", 305, 266, "0", "(ctypes.c_char * 512)()"),
        _call("modify_ldt", 154, None, "0", "(ctypes.c_char * 64)()", "16"),
        _call("membarrier", 324, 283, "0", "0"),
        _call("get_mempolicy", 239, 236, "(ctypes.c_int * 1)()", "0", "0", "0", "0"),
        _call("sysfs", 139, None, "3"),
        _call("fsopen", 430, 430, "b'tmpfs'", "0"),
        _call("open_tree", 428, 428, "-100", "b'/'", "1"),
        _call("name_to_handle_at", 303, 264, "-100", "b'/'", "(ctypes.c_int * 40)(128)", "(ctypes.c_int * 1)()", "0"),
        _call("cachestat", 451, 451, "0", "(ctypes.c_ulong * 2)()", "(ctypes.c_ulong * 5)()", "0"),
        _call("mincore", 27, 232, "(1 << 22)", "0", "(ctypes.c_char * 8)()"),
        _call("statmount", 457, 457, "(ctypes.c_ulong * 4)(32, -1, 0, 0)", "0", "0", "0"),
        _call("process_madvise", 440, 440, "-1", "0", "0", "20", "0"),
        _call("pkey_alloc", 330, 289, "0", "0"),
        _call("lsm_list_modules", 461, 461, "(ctypes.c_ulong * 64)()", "(ctypes.c_uint * 1)(512)", "0"),
    ]
)
CALLS["call: urgent data of a pair of sockets"] = Attack(
    "left, right = socket.socketpair()\nleft.send(b'xy')\n"
    "attempt('sent', lambda: left.send(b'x', socket.MSG_OOB))\n"
    "right.setblocking(False)\nattempt('received', lambda: right.recv(1, socket.MSG_OOB) and None)"
)
CALLS["call: names of memory"] = Attack(
    "place = mmap.mmap(-1, 8192, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n"
    "start = ctypes.c_long(ctypes.addressof(ctypes.c_char.from_buffer(place)))\n"
    "attempt('named', lambda: libc.prctl(0x53564d41, ctypes.c_long(0), start, ctypes.c_long(4096), b'x' * 70))"
)
for kind, mode in (("pipe", "0o10600"), ("socket", "0o140600"), ("device", "0o20600"), ("file", "0o100600")):
    name, attack = _call(f"mknod of a {kind}", 133, None, f"b'{kind}'", mode, "0x103")
    CALLS[name] = attack
    name, attack = _call(f"mknodat of a {kind}", 259, 33, "-100", f"b'{kind}'", mode, "0x103")
    CALLS[name] = attack
CALLS["call: timer_create, many"] = Attack(
    "made = 0\nwhile made < 5000 and call(222, 107, 1, 0, (ctypes.c_int * 1)()) >= 0: made += 1\n"
    "if made > 100: through(f'{made} timers')"
)
CALLS["call: of the 32-bit machine"] = Attack(
    "libc.mmap.restype = ctypes.c_void_p\n"
    "place = libc.mmap(None, 4096, 7, 0x22, -1, 0)\n"
    "ctypes.memmove(place, bytes.fromhex('b814000000cd80c3'), 8)  # getpid\n"
    "if not ARM and ctypes.CFUNCTYPE(ctypes.c_int)(place)() > 0: through('int 0x80')",
    ends=False,
)
CALLS["call: limits that keep crashes quiet"] = Attack(
    "for value in (0, 2):\n"
    "  attempt('RLIMIT_CORE', lambda: resource.setrlimit(resource.RLIMIT_CORE, (value, value)))\n"
    "  attempt('setrlimit', lambda: call(160, 164, 4, (ctypes.c_long * 2)(value, value)))\n"
    "if resource.getrlimit(resource.RLIMIT_CORE) != (1, 1): through('RLIMIT_CORE is not 1')"
)
CALLS["call: terminals"] = Attack("attempt('openpty', lambda: os.openpty() and None)")
CALLS["call: sockets of any family"] = Attack(
    "for family in range(47):\n  for kind in (1, 2, 3, 5):\n"
    "    for name, x86, arm in (('socket', 41, 198), ('socketpair', 53, 199)):\n"
    "      if name == 'socketpair' and family == 1: continue\n"
    "      attempt(f'{name} {family} {kind}', lambda: call(x86, arm, family, kind, 0, (ctypes.c_int * 2)()))"
)
CALLS["call: many signals waiting"] = Attack(
    "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])\nmade = 0\n"
    "block = (ctypes.c_int * 32)(0, 0, -1)\n"
    "while made < 50000:\n"
    "  block[0], block[1], block[2] = signal.SIGRTMIN, 0, -1\n"
    "  if call(129, 138, os.getpid(), int(signal.SIGRTMIN), block) < 0: break\n"
    "  made += 1\n"
    "while made < 50000:\n"
    "  if libc.kill(os.getpid(), int(signal.SIGRTMIN)) < 0: break\n"
    "  made += 1\n"
    "pending = [line for line in open('/proc/self/status') if line.startswith('SigQ')]\n"
    "count = int(pending[0].split()[1].split('/')[0]) if pending else 0\n"
    "if count > 1000: through(f'{count} signals wait')"
)


def _everything() -> dict[str, Attack]:
    memory = {f"memory: {name}": attack for name, attack in MEMORY_ATTACKS.items()}
    return {**PROCESSES, **SHARED, **CALLS, **memory}


ATTACKS = _everything()
"""All attacks of one program, by kind."""
