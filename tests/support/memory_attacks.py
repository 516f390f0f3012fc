"""Programs that take memory in every way there is, and hold more than their limit if it is not counted."""

from __future__ import annotations

from attack_parts import MEMORY, MIB, Attack


def _hog(text: str, children: int = 12, **limits: float) -> Attack:
    """A program in which some processes take memory with ``hog``; it may be ended by a limit."""
    body = f"def hog():\n{_indented(text)}\nin_children({children}, hog)\ntry:\n  hog()\nexcept BaseException: pass"
    return Attack(body + "\ntime.sleep(0.5)", {"memory": MEMORY, "seconds": 4.0, **limits}, ends=False)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


_MAP = """
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
size = 8 << 20
def map(flags, descriptor=-1, protection=3):
  place = libc.mmap(None, size, protection, flags, descriptor, 0)
  return None if place == ctypes.c_void_p(-1).value else place
"""

_SEND = """
def fill(end, room=1 << 40):
  end.setblocking(False)
  sent = 0
  part = bytes(1 << 16)
  while sent < room:
    try: sent += end.send(part)
    except OSError:
      if len(part) == 1024: break
      part = part[:1024]
  held(sent)
"""

MEMORY_ATTACKS = {
    "shared anonymous, dropped from the page table": _hog(
        _MAP + "while (place := map(0x21)):\n  ctypes.memset(place, 1, size)\n  libc.madvise(place, size, 4)\n"
        "  held(size)"
    ),
    "shared anonymous, of /dev/zero": _hog(
        _MAP + "zero = os.open('/dev/zero', os.O_RDWR)\n"
        "while (place := map(0x1, zero)):\n  ctypes.memset(place, 1, size)\n  libc.madvise(place, size, 4)\n"
        "  held(size)"
    ),
    "shared anonymous, mapped twice": _hog(
        _MAP + "libc.mremap.restype = ctypes.c_void_p\n"
        "libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]\n"
        "while (place := map(0x21)):\n  ctypes.memset(place, 1, size)\n  held(size)\n"
        "  libc.mremap(place, 0, 4096, 1)\n  libc.munmap(place, size)"
    ),
    "huge pages": _hog(
        _MAP + "for flags in (0x40022, 0x40021):\n"
        "  while (place := map(flags)):\n    ctypes.memset(place, 1, size)\n    held(size)"
    ),
    "private anonymous, in many processes": _hog(
        _MAP + "while (place := map(0x22)):\n  ctypes.memset(place, 1, size)\n  held(size)"
    ),
    "locked": _hog(_MAP + "while (place := map(0x2022)):\n  ctypes.memset(place, 1, size)\n  held(size)"),
    "memfd": _hog(
        "kept = []\nwhile True:\n  kept.append(os.memfd_create('x'))\n  os.write(kept[-1], bytes(8 << 20))\n"
        "  held(8 << 20)",
        file_size=64 * MIB,
    ),
    "System V": _hog(
        _MAP + "while True:\n  key = call(29, 194, 0, size, 0o1600)\n  if key < 0: break\n"
        "  libc.shmat.restype = ctypes.c_void_p\n  place = libc.shmat(key, None, 0)\n"
        "  ctypes.memset(place, 1, size)\n  libc.shmdt(ctypes.c_void_p(place))\n  held(size)"
    ),
    "System V messages": _hog(
        "key = call(68, 186, 0, 0o1600)\n"
        "while key >= 0 and call(69, 189, key, (ctypes.c_long * 1024)(1), 8000, 0o4000) >= 0:"
        "\n  held(8000)"
    ),
    "files in scratch": _hog(
        "n = 0\nwhile True:\n  n += 1\n  with open(f'{os.getpid()}-{n}', 'wb') as file:\n"
        "    file.write(bytes(1 << 20))\n  held(1 << 20)",
        scratch=1024 * MIB,
    ),
    "files in /dev/shm": _hog(
        "n = 0\nwhile True:\n  n += 1\n  with open(f'/dev/shm/{os.getpid()}-{n}', 'wb') as file:\n"
        "    file.write(bytes(1 << 20))\n  held(1 << 20)",
        scratch=1024 * MIB,
    ),
    "deleted files in scratch": _hog(
        "kept = []\nwhile True:\n  kept.append(os.open('.', os.O_TMPFILE | os.O_RDWR))\n"
        "  os.write(kept[-1], bytes(4 << 20))\n"
        "  held(4 << 20)",
        scratch=1024 * MIB,
    ),
    "mapped files in scratch": _hog(
        "n = 0\nwhile True:\n  n += 1\n  with open(f'm{os.getpid()}-{n}', 'w+b') as file:\n"
        "    file.truncate(8 << 20)\n"
        "    with mmap.mmap(file.fileno(), 8 << 20) as place:\n      place[:] = bytes(8 << 20)\n  held(8 << 20)",
        scratch=1024 * MIB,
    ),
    "links in scratch": _hog(
        "n = 0\nwhile True:\n  n += 1\n  os.symlink('x' * 4000, f'{os.getpid()}-{n}')\n  held(4096)", scratch=64 * MIB
    ),
    "attributes of files in scratch": _hog(
        "open(f'{os.getpid()}', 'w').close()\nn = 0\nwhile True:\n  n += 1\n"
        "  os.setxattr(f'{os.getpid()}', f'user.{n}', bytes(60000))\n  held(60000)"
    ),
    "many folders": _hog(
        "n = 0\nwhile True:\n  n += 1\n  os.mkdir(f'{os.getpid()}-{n}')\n  if n % 100 == 0: held(100 * 1024)",
        scratch=64 * MIB,
    ),
    "pipes": _hog(
        "kept = []\nwhile True:\n  reading, writing = os.pipe()\n  os.set_blocking(writing, False)\n"
        "  kept.append(reading)\n"
        "  try: held(os.write(writing, bytes(1 << 16)))\n  finally: os.close(writing)"
    ),
    "named pipes": _hog(
        "kept = []\nwhile True:\n  name = f'{os.getpid()}-{len(kept)}'\n  os.mkfifo(name)\n"
        "  kept.append(os.open(name, os.O_RDWR | os.O_NONBLOCK))\n  os.unlink(name)\n"
        "  through('a named pipe')\n  held(os.write(kept[-1], bytes(1 << 16)))"
    ),
    "pages of files in sockets, a byte of each": _hog(
        "pages = 250\nkept = []\nfile = os.open('.', os.O_TMPFILE | os.O_RDWR)\nwhile True:\n"
        "  left, right = socket.socketpair()\n  left.setblocking(False)\n  kept.append(right)\n"
        "  os.pwrite(file, b'x' * 4096 * pages, 0)\n"
        "  for page in range(pages):\n    try: os.sendfile(left.fileno(), file, 4096 * page, 1)\n"
        "    except BlockingIOError: break\n    held(4096)\n"
        "  os.ftruncate(file, 0)\n  left.close()"
    ),
    "copies of pages by each child at once": _hog(
        _MAP + "libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]\n"
        "size = 30 << 20\nareas = map(0x22)\n"
        "for at in range(0, size, 8192): libc.mprotect(areas + at, 4096, 1)\n"
        "size = 56 << 20\nplace = map(0x22)\nctypes.memset(place, 1, size)\n"
        "def copy():\n  time.sleep(0.5)\n  for at in range(0, size, 4 << 20):\n"
        "    ctypes.memset(place + at, 2, 4 << 20)\n    held(4 << 20)\n  time.sleep(100)\n"
        "in_children(13, copy)\ntime.sleep(2)",
        children=0,
    ),
    "processes that pass their memory on": _hog(
        _MAP + "size = 40 << 20\nplace = map(0x22)\nctypes.memset(place, 1, size)\n"
        "for _ in range(400):\n  if os.fork(): os._exit(0)\nheld(size)\ntime.sleep(1)",
        children=8,
    ),
    "pipes made larger": _hog(
        "kept = []\nwhile True:\n  reading, writing = os.pipe()\n  os.set_blocking(writing, False)\n"
        "  kept.append(reading)\n"
        "  fcntl.fcntl(writing, 1031, 1 << 20)\n  held(os.write(writing, bytes(1 << 20)))\n  os.close(writing)"
    ),
    "unix sockets": _hog(
        _SEND + "kept = []\nwhile True:\n  left, right = socket.socketpair()\n  kept.append(right)\n  fill(left)\n"
        "  left.close()"
    ),
    "unix sockets made larger": _hog(
        _SEND + "kept = []\nwhile True:\n  left, right = socket.socketpair()\n"
        "  left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)\n  kept.append(right)\n  fill(left)\n"
        "  left.close()"
    ),
    "unix datagrams": _hog(
        _SEND + "kept = []\nwhile True:\n  left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "  kept.append(right)\n  fill(left)\n  left.close()"
    ),
    "unix sockets that nobody accepted": _hog(
        _SEND + "end = socket.socket(socket.AF_UNIX)\nend.bind(f'{os.getpid()}')\nend.listen(4096)\nwhile True:\n"
        "  one = socket.socket(socket.AF_UNIX)\n  one.setblocking(False)\n  one.connect(f'{os.getpid()}')\n"
        "  fill(one)\n"
        "  one.close()"
    ),
    "descriptors in flight": _hog(
        _SEND + "kept = []\nwhile True:\n  left, right = socket.socketpair()\n  fill(left)\n"
        "  a, b = socket.socketpair()\n  socket.send_fds(a, [b'x'], [right.fileno(), b.fileno()])\n"
        "  for one in (left, right, b): one.close()\n  kept.append(a)"
    ),
    "TCP on loopback": _hog(
        _SEND + "kept = []\nserver = socket.create_server(('127.0.0.1', 0))\nwhile True:\n"
        "  one = socket.create_connection(server.getsockname())\n  fill(one, 8 << 20)\n  kept.append(one)"
    ),
    "TCP on loopback of IPv6": _hog(
        _SEND + "kept = []\nserver = socket.create_server(('::1', 0), family=socket.AF_INET6)\nwhile True:\n"
        "  one = socket.create_connection(server.getsockname()[:2])\n  fill(one, 8 << 20)\n  kept.append(one)"
    ),
    "UDP on loopback": _hog(
        _SEND + "kept = []\nwhile True:\n  one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "  one.bind(('127.0.0.1', 0))\n  one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)\n"
        "  for _ in range(200): held(one.sendto(bytes(60000), one.getsockname()))\n  kept.append(one)"
    ),
    "locks of ranges": _hog(
        "with open(f'{os.getpid()}', 'w+b') as file:\n"
        "  for place in range(0, 1 << 30, 2):\n"
        "    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)\n"
        "    if place % 2000 == 0: held(1000 * 200)",
        memory=16 * MIB * 4,
    ),
    "page tables": _hog(
        _MAP + "size = 96 << 20\n"
        "while (place := map(0x22)):\n"
        "  for at in range(0, size, 1 << 21):\n    ctypes.c_char.from_address(place + at).value\n"
        "  held(4096 * (size >> 21))"
    ),
    "private anonymous, of a process whose first thread ended": _hog(
        _MAP + "import threading\n"
        "def take():\n  while (place := map(0x22)):\n    ctypes.memset(place, 1, size)\n    held(size)\n"
        "  time.sleep(100)\n"
        "threading.Thread(target=take).start()\ncall(60, 93, 0)",
    ),
    "unix sockets of threads with descriptors of their own": _hog(
        _SEND + "import threading\n"
        "def take():\n  kept = []\n  call(436, 436, 1 << 20, (1 << 20) + 1, 2)\n  while True:\n"
        "    left, right = socket.socketpair()\n    kept.append(right)\n    fill(left)\n    left.close()\n"
        "for _ in range(13): threading.Thread(target=take).start()",
        children=0,
    ),
    "unix sockets of a program that nobody may read": Attack(
        "import shutil\nif len(sys.argv) < 2:\n  shutil.copy(sys.executable, 'copy')\n  os.chmod('copy', 0o111)\n"
        "  os.environ['PYTHONHOME'] = sys.base_prefix\n"
        "  os.execve('copy', ['copy', '-S', __file__, 'x'], os.environ)\n"
        + _SEND
        + "def hog():\n  kept = []\n  try:\n    while True:\n      left, right = socket.socketpair()\n"
        "      kept.append(right)\n      fill(left)\n      left.close()\n  except OSError: time.sleep(100)\n"
        "in_children(12, hog)\nhog()",
        {"memory": MEMORY, "seconds": 4.0, "file_size": 64 * MIB, "open_files": 256},
        ends=False,
    ),
    "areas of memory": _hog(
        _MAP + "libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]\n"
        "place = map(0x22)\n"
        "while place:\n  for at in range(0, size, 8192):\n    if libc.mprotect(place + at, 4096, 1): raise OSError\n"
        "  held(2 * 256 * (size >> 13))\n  place = map(0x22)"
    ),
    "watches of epoll": _hog(
        "import select\npolls = [select.epoll() for _ in range(20)]\nkept = [os.eventfd(0) for _ in range(15)]\n"
        "for one in kept:\n  for number in range(40, 64):\n    try: os.dup2(one, number)\n    except OSError: break\n"
        "    for poll in polls: poll.register(number, 1)\n    held(len(polls) * 200)\n    os.close(number)"
    ),
}
