"""A process gives up its own rights for good: limits of resources, Landlock for files, seccomp for system calls.

Needs no privilege, no user namespace and no package, only a Linux kernel (seccomp-BPF 3.5, Landlock 5.13) on x86-64 or
64-bit ARM. What is left is computing: the system calls that a Python program needs to compute and to read its standard
library. There is none to start a process or a thread, open a socket, send a signal, trace, or raise a limit.

Landlock: https://docs.kernel.org/userspace-api/landlock.html; seccomp: seccomp(2). Runs inside the sandbox, hence the
standard library alone.
"""

import ctypes
import os
import platform
import resource
import struct
import sys
import sysconfig

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# name: (number on x86-64, number on 64-bit ARM); -1 where the architecture has no such call
_COMPUTE = {
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67), "close": (3, 57),
    "fstat": (5, 80), "lseek": (8, 62), "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214),
    "mremap": (25, 216), "madvise": (28, 233), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139), "sigaltstack": (131, 132), "restart_syscall": (219, 128), "sched_yield": (24, 124),
    "nanosleep": (35, 101), "clock_nanosleep": (230, 115), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "gettimeofday": (96, 169), "time": (201, -1), "times": (100, 153), "getrusage": (98, 165), "futex": (202, 98),
    "getpid": (39, 172), "getppid": (110, 173), "gettid": (186, 178), "getuid": (102, 174), "geteuid": (107, 175),
    "getgid": (104, 176), "getegid": (108, 177), "uname": (63, 160), "sched_getaffinity": (204, 123),
    "getrandom": (318, 278), "rseq": (334, 293), "exit": (60, 93), "exit_group": (231, 94), "poll": (7, -1),
}  # fmt: skip
# only where Landlock says which files; none of them writes
_READ_FILES = {
    "openat": (257, 56), "newfstatat": (262, 79), "stat": (4, -1), "lstat": (6, -1), "statx": (332, 291),
    "access": (21, -1), "faccessat": (269, 48), "readlink": (89, -1), "readlinkat": (267, 78), "getdents64": (217, 61),
    "getcwd": (79, 17),
}  # fmt: skip
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on every architecture
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
PACKAGE_FOLDERS = ("site-packages", "dist-packages")
"""Where installed packages lie within a standard library."""


def limit_resources(cpu_s: int, memory_mb: int) -> None:
    """Limit processor seconds, address space, files written (none), files open, processes and core dumps."""
    memory = memory_mb << 20
    for name, soft, hard in (
        (resource.RLIMIT_CPU, cpu_s, cpu_s + 1),
        (resource.RLIMIT_AS, memory, memory),
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_NOFILE, 64, 64),
        (resource.RLIMIT_NPROC, 0, 0),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        resource.setrlimit(name, (soft, hard))


def compute_only(rules: int | None) -> None:
    """Keep only the system calls of computing, and of files only what the rules allow, which are closed.

    Args:
        rules: what `file_rules` returned; None: no file can be opened at all, so no module be loaded any more.

    Raises:
        OSError: the kernel has no seccomp filter, or this architecture is not known here.
    """
    machine = platform.machine()
    if machine not in _AUDIT_ARCH:
        raise OSError(f"no table of system calls for {machine}; known: {', '.join(_AUDIT_ARCH)}")
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.prctl(38, 1, 0, 0, 0), "no_new_privs")  # PR_SET_NO_NEW_PRIVS
    if rules is not None:
        _check(libc.syscall(_RESTRICT_SELF, rules, 0), "Landlock")
        os.close(rules)
    calls = _COMPUTE | ({} if rules is None else _READ_FILES)
    column = list(_AUDIT_ARCH).index(machine)
    _filter(libc, _AUDIT_ARCH[machine], sorted(numbers[column] for numbers in calls.values() if numbers[column] >= 0))


def file_rules() -> int | None:
    """A descriptor of Landlock rules: nothing is written, and nothing is read but `library_paths`.

    None: the kernel has no Landlock.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    abi = libc.syscall(_CREATE_RULESET, None, 0, 1)
    if abi < 1:
        return None
    rights = (1 << 13) - 1  # of ABI 1; each later one has more that can be denied
    for since, bit in ((2, 13), (3, 14), (5, 15)):
        rights |= (1 << bit) if abi >= since else 0
    attributes = struct.pack(
        "QQQ", rights, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0
    )  # files, TCP, signals and sockets
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    rules = _check(libc.syscall(_CREATE_RULESET, ctypes.c_char_p(attributes), size, 0), "the Landlock rule set")
    stdlib = sysconfig.get_paths()["stdlib"]
    for path, allowed in [(stdlib, _READ_DIR), *((path, _READ_FILE | _READ_DIR) for path in library_paths())]:
        opened = os.open(path, os.O_PATH)
        allowed &= -1 if os.path.isdir(path) else _READ_FILE
        rule = ctypes.c_char_p(struct.pack("=Qi", allowed, opened))
        _check(libc.syscall(_ADD_RULE, rules, 1, rule, 0), f"the Landlock rule for {path}")
        os.close(opened)
    return rules


def library_paths() -> list[str]:
    """The standard library, the shared libraries under it and the time zones, without installed packages.

    Packages are left out because some of them are the very data sets that code is tested on.
    """
    own = sysconfig.get_paths()
    standard = [own["stdlib"], own["platstdlib"]]
    shared = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", os.path.join(sys.base_prefix, "lib")]
    paths = [
        os.path.join(folder, name) for folder in standard for name in _entries(folder) if name not in PACKAGE_FOLDERS
    ]
    paths += [os.path.join(folder, name) for folder in shared for name in _entries(folder) if name[:6] != "python"]
    paths += ["/etc/ld.so.cache", "/usr/share/zoneinfo"]
    return list(dict.fromkeys(path for path in paths if os.path.exists(path)))


def _entries(folder: str) -> list[str]:
    return os.listdir(folder) if os.path.isdir(folder) else []


def _filter(libc: ctypes.CDLL, arch: int, numbers: list[int]) -> None:
    """Answer every other system call with EPERM; end a process that speaks another architecture's calls."""
    load, equal, answer = 0x20, 0x15, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
    kill, allow, deny = 0x80000000, 0x7FFF0000, 0x00050000 | 1  # KILL_PROCESS, ALLOW, ERRNO with EPERM
    program = [(load, 0, 0, 4), (equal, 1, 0, arch), (answer, 0, 0, kill), (load, 0, 0, 0)]
    for at, number in enumerate(numbers):
        program.append((equal, len(numbers) - at, 0, number))  # jumps over the rest and over the denial
    program += [(answer, 0, 0, deny), (answer, 0, 0, allow)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code)))
    _check(libc.prctl(22, 2, header, 0, 0), "the seccomp filter")  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def _check(result: int, what: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"the kernel refused {what}: {os.strerror(ctypes.get_errno())}")
    return result
