"""Programs that try to pass without being right: each ``add`` fails at least one hidden test."""

from __future__ import annotations

EQUAL_TO_ALL = """
class Equal:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
    def __bool__(self): return True
    def all(self): return True
    any = all
    def __iter__(self): return iter(())
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __lt__
    def __contains__(self, other): return True
    def __instancecheck__(self, other): return True
    def __getattr__(self, name): return self
    def __call__(self, *given): return self
    def __sub__(self, other): return 0
    __rsub__ = __add__ = __radd__ = __sub__
"""

SERVER = """
import sys
server = sys.modules["donod_fast.evaluation.judging.program_side"]
"""

LEAVES = {
    "sys.exit": "import sys\ndef add(a, b): sys.exit(0)",
    "sys.exit at import": "import sys\nsys.exit(0)",
    "exit": "def add(a, b): exit(0)",
    "os._exit": "import os\ndef add(a, b): os._exit(0)",
    "os._exit at import": "import os\nos._exit(0)",
    "SystemExit": "def add(a, b): raise SystemExit",
    "SystemExit of a class of its own": "class E(SystemExit): pass\ndef add(a, b): raise E(0)",
    "KeyboardInterrupt": "def add(a, b): raise KeyboardInterrupt",
    "GeneratorExit": "def add(a, b): raise GeneratorExit",
    "a BaseException that looks like a value": "class E(BaseException):\n  args = ('value', 5)\ndef add(a, b): raise E",
    "closes the channel": "import os\nos.closerange(3, 64)\ndef add(a, b): return 5",
    "shuts the channel down": (
        "import os, socket\ndef add(a, b):\n"
        "  socket.socket(fileno=int(os.environ['DONOD_CHANNEL'])).shutdown(2)\n  return 5"
    ),
    "kills itself": "import os, signal\ndef add(a, b): os.kill(os.getpid(), signal.SIGKILL)",
    "stops itself by SIGTERM": "import os, signal\ndef add(a, b): os.kill(os.getpid(), signal.SIGTERM)",
    "kills all": "import os, signal\ndef add(a, b): os.kill(-1, signal.SIGKILL)",
    "kills its parent": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\ndef add(a, b): return 5",
    "kills its group": "import os, signal\ndef add(a, b): os.killpg(0, signal.SIGKILL)",
    "atexit": "import atexit, os\natexit.register(os._exit, 0)\nraise SystemExit(0)",
    "execs another program": "import os\ndef add(a, b): os.execv('/bin/true', ['true'])",
    "a signal handler that leaves": (
        "import os, signal\nsignal.signal(signal.SIGALRM, lambda *given: os._exit(0))\nsignal.setitimer(0, 0.01)\n"
        "def add(a, b):\n  while True: pass"
    ),
    "segmentation fault": "import ctypes\ndef add(a, b): ctypes.string_at(0)",
}

PRETENDS = {
    "equal to everything": f"{EQUAL_TO_ALL}\ndef add(a, b): return Equal()",
    "the function itself is": f"{EQUAL_TO_ALL}\nadd = Equal()",
    "an int that is equal": (
        "class I(int):\n  def __eq__(s, o): return True\n  __hash__ = int.__hash__\ndef add(a, b): return I(1)"
    ),
    "a str that is equal": (
        "class S(str):\n  def __eq__(s, o): return True\n  __hash__ = str.__hash__\ndef add(a, b): return S('')"
    ),
    "a list that is equal": "class L(list):\n  def __eq__(s, o): return True\ndef add(a, b): return L()",
    "a tuple that is equal": "class T(tuple):\n  def __eq__(s, o): return True\ndef add(a, b): return T()",
    "a float that is equal": "class F(float):\n  def __eq__(s, o): return True\ndef add(a, b): return F(1)",
    "an int that hides itself": (
        "class I(int):\n  def __eq__(s, o): return True\n  def to_bytes(s, *a, **k): return b'\\5'\n"
        "  def bit_length(s): return 3\n  def __index__(s): return 5\ndef add(a, b): return I(1)"
    ),
    "a class that lies": "class C:\n  __class__ = int\n  def __eq__(s, o): return True\ndef add(a, b): return C()",
    "a metaclass": f"{EQUAL_TO_ALL}\nclass M(type):\n  def __eq__(s, o): return True\n  __hash__ = type.__hash__\n"
    "class C(metaclass=M): pass\ndef add(a, b): return C",
    "reduces to the answer": (
        "class R:\n"
        "  def __reduce__(s): return (eval, ('__import__(\"builtins\").__dict__.update(all=lambda x: True) or 5',))\n"
        "  __reduce_ex__ = lambda s, v: s.__reduce__()\ndef add(a, b): return R()"
    ),
    "NaN": "def add(a, b): return float('nan')",
    "none": "def add(a, b): return None",
    "NotImplemented": "def add(a, b): return NotImplemented",
    "not hashable in a set": "class U(list):\n  __hash__ = lambda s: 0\ndef add(a, b): return {U()}",
    "an endless generator": "def add(a, b):\n  n = 0\n  while True:\n    yield n\n    n += 1",
    "a mock": "from unittest.mock import MagicMock, ANY\ndef add(a, b): return ANY",
    "deleted on the way": (
        "import os\nclass D:\n  def __del__(s): os._exit(0)\n  def __eq__(s, o): return True\ndef add(a, b): return D()"
    ),
}

PATCHES = {
    "AssertionError": (
        "import builtins\nbuiltins.AssertionError = Warning\nAssertionError = Warning\ndef add(a, b): return 1"
    ),
    "builtins": (
        "import builtins\nfor n in ('all', 'abs', 'any', 'isinstance', 'sorted', 'bool'):\n"
        "  setattr(builtins, n, lambda *a, **k: True)\ndef add(a, b): return 1"
    ),
    "len": "import builtins\nbuiltins.len = lambda x: 5\ndef add(a, b): return 1",
    "__builtins__": "__builtins__['__build_class__'] = None\ndef add(a, b): return 1",
    "excepthook": "import sys\nsys.excepthook = lambda *a: sys.exit(0)\ndef add(a, b): raise ValueError",
    "check of its own": "def check(candidate): pass\ndef add(a, b): return 1",
    "modules": "import sys\nsys.modules.clear()\ndef add(a, b): return 1",
    "modules of ours": (
        "import sys\nfor n in list(sys.modules):\n  if 'donod' in n: sys.modules[n] = None\ndef add(a, b): return 1"
    ),
    "encode": f"{SERVER}\nserver.encode = lambda *a: b'T'\ndef add(a, b): return 1",
    "answer": f"{SERVER}\nserver.Server.answer = lambda s, q: b'passed'\ndef add(a, b): return 1",
    "send": (
        f"{SERVER}\n"
        f"server.wire.send = lambda d, p: __import__('os').write(d, b'\\0\\0\\0\\7.passed')\ndef add(a, b): return 1"
    ),
    "settrace": (
        "import sys\ndef trace(frame, event, arg):\n  for name, value in frame.f_locals.items():\n"
        "    if name in ('expected', 'answer'): frame.f_locals[name] = 5\n  return trace\n"
        "sys.settrace(trace)\ndef add(a, b): return 1"
    ),
    "frames": (
        "import sys\ndef add(a, b):\n  frame = sys._getframe()\n  while frame:\n"
        "    for scope in (frame.f_locals, frame.f_globals):\n"
        "      for name in ('expected', 'answer', 'SECRET', 'y'):\n        if name in scope: return scope[name]\n"
        "    frame = frame.f_back\n  return 1"
    ),
    "constants of code objects": (
        "import gc\ndef add(a, b):\n  for o in gc.get_objects():\n    code = getattr(o, '__code__', None)\n"
        "    if code is not None and o.__name__ == 'check': return code.co_consts[-1]\n  return 1"
    ),
    "a recursion limit of nothing": "import sys\nsys.setrecursionlimit(60)\ndef add(a, b): return 1",
    "exhausted recursion": "def add(a, b): return add(a, b)",
    "recursion without a limit": ("import sys\nsys.setrecursionlimit(10**9)\ndef add(a, b): return add(a, b)"),
}

FORGES = {
    "frames on every descriptor": (
        "import os, struct\nbody = b'.' + b'passed'\nfor d in range(3, 256):\n"
        "  try: os.write(d, struct.pack('>I', len(body)) + body)\n  except OSError: pass\ndef add(a, b): return 1"
    ),
    "a verdict on the channel": (
        "import os, struct, sys\nfrom donod_fast.evaluation.judging import encoder\n"
        "body = b'.' + encoder.encode({'status': 'passed', 'detail': '', 'base': True, 'expected': []})\n"
        "def add(a, b):\n  os.write(int(os.environ['DONOD_CHANNEL']), struct.pack('>I', len(body)) + body)\n  return 1"
    ),
    "an answer ahead of its question": (
        "import os, struct\nfrom donod_fast.evaluation.judging import encoder\n"
        "body = bytes(8) + encoder.encode(('value', 5))\n"
        "os.write(int(os.environ['DONOD_CHANNEL']), 4 * (struct.pack('>I', len(body)) + body))\n"
        "def add(a, b): return a + b"
    ),
    "two answers": ("import os\nos.fork()\ndef add(a, b): return 5"),
    "a frame without end": (
        "import os\nos.write(int(os.environ['DONOD_CHANNEL']), b'\\xff\\xff\\xff\\xff')\ndef add(a, b): return 5"
    ),
    "garbage": "import os\nos.write(int(os.environ['DONOD_CHANNEL']), os.urandom(5000))\ndef add(a, b): return 5",
    "standard output": (
        "import sys\nfor out in (sys.stdout, sys.stderr):\n"
        "  print('passed', 'ok', '{\"status\": \"passed\"}', 'result: 1', sep='\\n"
        "', file=out, flush=True)\ndef add(a, b): return 1"
    ),
    "files": (
        "import os\nfor folder in ('.', '/scratch', '/tmp', '/program', '/', '/work', os.path.expanduser('~')):\n"
        "  for name in ('result.json', 'verdicts.jsonl', 'passed'):\n"
        "    try: open(f'{folder}/{name}', 'w').write('{\"passed\": true}')\n"
        "    except OSError: pass\ndef add(a, b): return 1"
    ),
    "a thread that answers later": (
        "import threading, time, os, struct\ndef later():\n  time.sleep(0.3)\n"
        "  os.write(int(os.environ['DONOD_CHANNEL']), struct.pack('>I', 1) + b'.')\n"
        "threading.Thread(target=later, daemon=True).start()\ndef add(a, b):\n  time.sleep(0.2)\n  return 5"
    ),
    "a child that outlives it": (
        "import os, time\ndef add(a, b):\n  if os.fork():\n    os._exit(0)\n  os.setsid()\n"
        "  time.sleep(0.5)\n  return 5"
    ),
    "an instance of the judge": (
        "import os\nfrom donod_fast.evaluation.judging import judge_side\ndef add(a, b):\n"
        "  judge_side.Judge.verdict = 'passed'\n  return 5"
    ),
}

FLOODS = {
    "an enormous string": "def add(a, b): return 'x' * (200 << 20)",
    "an enormous list": "def add(a, b): return [0] * (20 << 20)",
    "a deep list": "def add(a, b):\n  deep = []\n  for _ in range(100000): deep = [deep]\n  return deep",
    "a list within itself": "def add(a, b):\n  loop = []\n  loop.append(loop)\n  return loop",
    "a wide tower": "def add(a, b):\n  tower = [0] * 10\n  for _ in range(30): tower = [tower] * 10\n  return tower",
    "a great integer": "def add(a, b): return 1 << (1 << 28)",
    "endless output": "def add(a, b):\n  while True: print('x' * 10000)",
    "all memory": "def add(a, b):\n  kept = []\n  while True: kept.append(bytearray(10 << 20))",
    "a message without end": "class E(Exception):\n  def __str__(s): return 'x' * (300 << 20)\ndef add(a, b): raise E",
    "a name without end": "E = type('E' * 1000000, (Exception,), {})\ndef add(a, b): raise E",
    "a busy loop": "def add(a, b):\n  while True: pass",
    "sleep": "import time\ndef add(a, b): time.sleep(1000)",
    "sleep at import": "import time\ntime.sleep(1000)",
    "input": "def add(a, b): return int(input())",
    "processes": "import os\ndef add(a, b):\n  while True: os.fork()",
}
