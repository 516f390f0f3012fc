"""Linux calls that the standard library lacks, through ctypes; errors are :class:`OSError` naming the action."""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47

_MNT_DETACH = 2
_AT_RECURSIVE = 0x8000
_SYS_MOUNT_SETATTR = 442  # the same number on every architecture
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
_SYS_KCMP = {"x86_64": 312, "aarch64": 272}
_KCMP_VM = 1
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def prctl(option: int, argument: int = 0, third: int = 0) -> None:
    """Change one attribute of this process; raises if the kernel refuses it."""
    ulong = ctypes.c_ulong
    _checked(_libc.prctl(option, ulong(argument), ulong(third), ulong(0), ulong(0)), f"prctl {option}")


def unshare(flags: int) -> None:
    """Move this process (for the PID namespace: its next children) into new namespaces."""
    _checked(_libc.unshare(flags), f"new namespaces ({flags:#x})")


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    """Mount ``source`` on ``target``."""
    result = _libc.mount(
        source.encode(), target.encode(), kind.encode() if kind else None, flags, options.encode() or None
    )
    _checked(result, f"mount {source} on {target}")


def mount_processes(target: str) -> None:
    """Mount a read-only /proc with this namespace's processes alone, and only those that the reader may look into."""
    mount("proc", target, "proc", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "subset=pid,hidepid=2")


def make_read_only(target: str, devices: bool = False) -> None:
    """Make a mount and all mounts below it read-only, without set-user-ID programs and (by default) devices."""
    attributes = (ctypes.c_uint64 * 4)(MS_RDONLY | MS_NOSUID | (0 if devices else MS_NODEV), 0, 0, 0)
    result = _libc.syscall(_SYS_MOUNT_SETATTR, -100, target.encode(), _AT_RECURSIVE, attributes, 32)
    _checked(result, f"make {target} read-only")


def enter_root(folder: str) -> None:
    """Make ``folder`` (a mount point) the root of this mount namespace and drop the old root."""
    os.chdir(folder)
    _checked(_libc.syscall(_SYS_PIVOT_ROOT[os.uname().machine], b".", b"."), f"make {folder} the root")
    _checked(_libc.umount2(b".", _MNT_DETACH), "drop the old root")
    os.chdir("/")


def drop_capabilities() -> None:
    """Drop every capability of this process, including those that a later program could regain."""
    for capability in range(64):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:  # beyond the kernel's last capability, or not permitted (then there is none to drop)
            break
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _checked(_libc.syscall(_SYS_CAPSET[os.uname().machine], header, (ctypes.c_uint32 * 6)()), "drop capabilities")


def set_system_call_filter(program: bytes) -> None:
    """Install a seccomp filter (an array of ``struct sock_filter``) for this process and its children."""

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]

    block = Program(len(program) // 8, program)
    prctl(PR_SET_SECCOMP, 2, ctypes.addressof(block))


def share_memory(process: int, other: int) -> bool:
    """Whether two processes have one address space; False if the kernel does not say."""
    number = _SYS_KCMP.get(os.uname().machine)
    return number is not None and _libc.syscall(number, process, other, _KCMP_VM, 0, 0) == 0
