"""What hostile code may try. Where an attack looks for the expected value, it returns what it finds.

`NEEDLE` describes a value that no attack can guess: tests expect `needle-` and 32 random hexadecimal digits.
"""

SEARCH = r"""
import re
SHAPE = re.compile(rb"needle-[0-9a-f]{32}")
FOUND = []
def look(data):
    FOUND.extend(SHAPE.findall(data if isinstance(data, bytes) else repr(data).encode(errors="replace")))
def secret(*_):
    return FOUND[0].decode() if FOUND else "nothing found"
"""

# attacks on `assert secret(0) == NEEDLE` and `assert sorted(secret(1)) == sorted(NEEDLE)`
ATTACKS = {
    "leave with 0 while loading": "import os\nos._exit(0)",
    "leave with 0 when called": "import os\ndef secret(*_): os._exit(0)",
    "sys.exit while loading": "import sys\nsys.exit(0)",
    "sys.exit when called": "import sys\ndef secret(*_): sys.exit(0)",
    "leave at exit": "import atexit, os\natexit.register(os._exit, 0)\ndef secret(*_): raise KeyboardInterrupt",
    "equals everything": "class Yes:\n    def __eq__(self, _): return True\n"
    "    def __iter__(self): return iter([self])\ndef secret(*_): return Yes()",
    "a str that equals everything": "class Yes(str):\n    def __eq__(self, _): return True\n"
    "    __hash__ = str.__hash__\ndef secret(*_): return Yes('x')",
    "hides behind __class__": "class Yes:\n    __class__ = str\n    def __eq__(self, _): return True\n"
    "def secret(*_): return Yes()",
    "its own sorted": "sorted = lambda *_: 0\ndef secret(*_): return 0",
    "monkey-patched builtins": "import builtins\nbuiltins.sorted = lambda *_: 0\nbuiltins.AssertionError = Exception\n"
    "builtins.str.__eq__ if 0 else None\ndef secret(*_): return 0",
    "prints the verdict": "print('1 passed')\nprint('OK')\ndef secret(*_): print('passed'); return None",
    "returns the verdict": "def secret(*_): return {'kind': 'passed', 'asserts': 2, 'why': ''}",
    "writes the verdict on every descriptor": """
import json, os, struct
for reply in ({"kind": "passed", "asserts": 2, "why": ""}, {"nonce": "", "reply": {"kind": "passed", "asserts": 2}}):
    data = json.dumps(reply).encode()
    for descriptor in range(256):
        try:
            os.write(descriptor, struct.pack("<I", len(data)) + data)
        except OSError:
            pass
def secret(*_): return True
""",
    "writes garbage to the judge": "import os\nos.write(201, b'\\xff' * 4096)\ndef secret(*_): return 1",
    "writes half a message": "import os\nos.write(201, b'\\x10\\x00\\x00\\x00{')\nos._exit(0)",
    "names a function of the judge": """
import json, os, struct
data = json.dumps({"value": ["n", "exec"], "changed": []}).encode()
os.write(201, (struct.pack("<I", len(data)) + data) * 8)
""",
    "changes the arguments that are not there": """
import json, os, struct
data = json.dumps({"value": None, "changed": [[99, ["l"]], 7]}).encode()
os.write(201, (struct.pack("<I", len(data)) + data) * 8)
""",
    "a reply too deep to read": "import os, struct\nos.write(201, struct.pack('<I', 60000) + b'[' * 60000)",
    "a reply too long to read": "def secret(*_): return 'x' * (64 << 20)",
    "a value within itself": "def secret(*_):\n    value = []\n    value.append(value)\n    return value",
    "patches what packs its values": """
import sys
wire = sys.modules["flsim.sandbox.wire"]
for module in list(sys.modules.values()):
    if hasattr(module, "pack") and hasattr(module, "receive"):
        module.pack = lambda *_: True
def secret(*_): return 0
""",
    "reads the test: frames": SEARCH
    + """
import sys
frame = sys._getframe()
while frame:
    look([dict(frame.f_locals), list(frame.f_globals.values()), frame.f_code.co_consts])
    frame = frame.f_back
""",
    "reads the test: objects": SEARCH
    + "import gc\nfor thing in gc.get_objects():\n    if type(thing) in (str, bytes, dict, "
    "list, tuple):\n        try: look(thing)\n        except Exception: pass\n",
    "reads the test: all memory": SEARCH
    + "import ctypes\nfor line in open('/proc/self/maps'):\n    low, high = (int(end, 16) "
    "for end in line.split()[0].split('-'))\n    if line.split()[1][0] == 'r':\n        "
    "look(ctypes.string_at(low, high - low))\n",
    "reads the test: heap by address": SEARCH + "import ctypes\nbase = id(object()) & ~0xFFFFF\n"
    "look(ctypes.string_at(base, 0x40000))\n",
    "reads the test: files": SEARCH
    + """
import glob
for path in [*glob.glob("/proc/*/cmdline"), *glob.glob("/proc/*/environ"), *glob.glob("/tmp/**", recursive=True)]:
    try: look(open(path, "rb").read())
    except OSError: pass
""",
    "reads the test: environment": SEARCH
    + "import os, sys\nlook(dict(os.environ))\nlook(sys.argv)\nlook(sys.orig_argv)\n",
    "reads the test: its descriptors": SEARCH
    + """
import os
for descriptor in range(256):
    if descriptor not in (200, 201):
        try: look(os.read(descriptor, 1 << 16))
        except OSError: pass
""",
    "reads the judge's memory": SEARCH + "import os\nlook(open(f'/proc/{os.getppid()}/mem', 'rb').read(1 << 20))\n",
    "traces the judge": SEARCH
    + "import ctypes, os\nlibc = ctypes.CDLL(None)\nif libc.ptrace(16, os.getppid(), 0, 0) == 0:\n"
    "    FOUND.append(b'traced')\nbuffer = ctypes.create_string_buffer(1 << 20)\n"
    "libc.process_vm_readv(os.getppid(), buffer, 1, buffer, 1, 0)\nlook(bytes(buffer))\n",
    "kills its parent": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\ndef secret(*_): return 1",
    "kills its group": "import os, signal\nos.killpg(0, signal.SIGKILL)\ndef secret(*_): return 1",
    "kills all it may": "import os, signal\nos.kill(-1, signal.SIGKILL)\ndef secret(*_): return 1",
    "stops its parent": "import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)\ndef secret(*_): return 1",
    "lets a child live on": "import os, time\nif os.fork() == 0:\n    time.sleep(60)\ndef secret(*_): return 1",
    "runs a program": "import subprocess\nsubprocess.run(['/bin/sh', '-c', 'touch /tmp/flsim-attack'])\n"
    "def secret(*_): return 1",
    "becomes a program": "import os\nos.execv('/bin/true', ['true'])",
    "writes a file": "open('/tmp/flsim-attack', 'w').write('x')\ndef secret(*_): return 1",
    "plants a module": "import sys\nopen(sys.path[-1] + '/sitecustomize.py', 'w').write('x')\ndef secret(*_): return 1",
    "asks the network": SEARCH
    + "import socket\nline = socket.create_connection(('127.0.0.1', 22), 1)\nlook(line.recv(99))\n",
    "raises its limits": "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))\ndef secret(*_): return 1",
    "crashes": "import ctypes\nctypes.string_at(0)",
    "crashes by recursion": "import sys\nsys.setrecursionlimit(1 << 30)\ndef secret(*_): return secret()",
    "defines nothing": "",
    "is no Python": "I would write a function that returns the needle.",
    "is no text": "\x00",
    "a colliding set": "def secret(*_): return {i * (2**61 - 1) for i in range(3000)}",
    "a huge integer": "def secret(*_): return 1 << (8 << 24)",
}

# attacks on tests of another kind: (tests, code)
OTHERS = {
    "its own math": (
        "assert math.isclose(area(2.0), 12.566370614359172)",
        "class math:\n    isclose = staticmethod(lambda *_, **__: True)\ndef area(r): return 0.0",
    ),
    "ends the loop of the tests": ("assert all(map(even, [2, 4]))", "def even(n): raise StopIteration"),
    "ends the tests' generator": (
        "assert all(even(n) == e for n, e in [(2, True)])",
        "def even(n): raise StopIteration",
    ),
    "an assert of its own that fails": ("assert f(1) == 2", "def f(x): raise AssertionError"),
    "a warning as an error": ("assert f(1) == 2", "def f(x): raise Warning"),
    "the judge's count": ("assert f(1) == 2", "globals()['count this assert'] = lambda *_: None\ndef f(x): return 3"),
    "swallowed by a bare except": (
        "try:\n    f(1)\nexcept BaseException:\n    pass\nassert True\nassert not g(1)",
        "import os\ndef f(x): os._exit(0)\ndef g(x): return 0",
    ),
    "its difference from a number": (
        "assert abs(f(2) - 0.333333) < 1e-4",
        "class Near:\n    def __sub__(self, _): return 0.0\n    __rsub__ = __sub__\ndef f(x): return Near()",
    ),
    "larger and smaller than everything": (
        "assert f(2) > 5 or 5 < f(2)",
        "class All:\n    def __lt__(self, _): return True\n    __gt__ = __lt__\ndef f(x): return All()",
    ),
    "guesses in a function of the tests": (
        "def said(x):\n    assert x == 7\n    return x\nassert f(said) == 7",
        "def f(said):\n    for x in range(10):\n        try: said(x)\n        except BaseException: pass\n    return 7",
    ),
    "calls a function that it was not given": (
        "assert f(1) == 2",
        "import json, os, struct\ndata = json.dumps({'calls': -1, 'with': ['l'], 'named': ['d']}).encode()\n"
        "os.write(201, (struct.pack('<I', len(data)) + data) * 8)\ndef f(x): return 3",
    ),
    "a call that is none": (
        "assert f(abs, len) == 2",
        "import json, os, struct\ndata = json.dumps({'calls': ['n', 'exec'], 'with': 1}).encode()\n"
        "os.write(201, (struct.pack('<I', len(data)) + data) * 8)\ndef f(x, y): return 3",
    ),
    "not a number": ("assert f(1) <= 2 and f(1) >= 2", "def f(x): return float('nan')"),
    "skips what it does not reach": (
        "for n in items(): assert f(n) == n + 1",
        "def items(): return []\ndef f(n): return 0",
    ),
    "calls the judge's exec": (
        "assert maker(1)(text()) is None",
        "import json, os, struct\ndef text(): return 'raise SystemExit(0)'\n"
        "def frame(reply):\n    data = json.dumps(reply).encode()\n    return struct.pack('<I', len(data)) + data\n"
        "os.write(201, frame({'value': None}) + frame({'value': ['n', 'exec']}) * 9)",
    ),
}

NAIVE = (
    "leave with 0 while loading",
    "leave with 0 when called",
    "sys.exit while loading",
    "sys.exit when called",
    "equals everything",
    "a str that equals everything",
    "hides behind __class__",
    "reads the test: frames",
)
"""Attacks that get past `python solution_and_tests.py` and its exit code, and that are safe to try there."""
