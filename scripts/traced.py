"""Every call by which a process changes files below a folder, seen before the system carries it out. Linux on x86-64.

    def decide(call: Call) -> Verdict: ...
    status = run(work, folder, decide)

`work` runs in a forked process that is traced with all its threads and processes (ptrace(2)). A filter (seccomp(2))
stops it at calls that change files, at no other ones. `decide` says of each what becomes of it: done, refused with an
error, or cut short by the end of the process.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import signal
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_WRITES = {1: "write", 18: "pwrite", 20: "writev", 296: "pwritev"}
_OF_FILE = {74: "fsync", 75: "fdatasync", 77: "truncate", 285: "allocate"}  # on an open one
_OPENS = {2: 0, 257: 1, 85: 0}  # open, openat, creat: which argument is the path
_PATHS = {  # name; which arguments are (folder, path), -1 the folder of the process
    76: ("truncate", ((-1, 0),)),
    82: ("rename", ((-1, 0), (-1, 1))),
    83: ("mkdir", ((-1, 0),)),
    84: ("rmdir", ((-1, 0),)),
    86: ("link", ((-1, 0), (-1, 1))),
    87: ("unlink", ((-1, 0),)),
    88: ("symlink", ((-1, 1),)),
    258: ("mkdir", ((0, 1),)),
    263: ("unlink", ((0, 1),)),
    264: ("rename", ((0, 1), (2, 3))),
    316: ("rename", ((0, 1), (2, 3))),
}
_COPIES = (40, 326)  # sendfile, copy_file_range: refused, so that who asks writes what was read
_TRUNCATE_OF_PATH, _CREAT, _OPENAT = 76, 85, 257
_SEEN = sorted({*_WRITES, *_OF_FILE, *_OPENS, *_PATHS, *_COPIES})
_MOST = 2**26  # bytes of one write

_TRACEME, _PEEK, _GETREGS, _SETREGS, _CONT = 0, 2, 12, 13, 7
_SETOPTIONS, _GETEVENTMSG = 0x4200, 0x4201
_OPTIONS = 0x02 | 0x04 | 0x08 | 0x80 | 0x100000  # follow fork, vfork, clone; stop for seccomp; die with the tracer
_SECCOMP_EVENT = 7
_NO_NEW_PRIVILEGES, _SET_SECCOMP = 38, 22
_X86_64 = 0xC000003E
_REGISTERS = (
    "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base "
    "ds es fs gs"
)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


class _Registers(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_ulonglong) for name in _REGISTERS.split())


@dataclass(frozen=True)
class Call:
    """number: from 1. kind: write, create, truncate, allocate, fsync, rename, link, symlink, unlink, mkdir, rmdir.

    paths: one, or from and to. offset, data: of a write; offset is the new length of a truncation.
    """

    number: int
    kind: str
    paths: tuple[Path, ...]
    offset: int = 0
    data: bytes = b""


@dataclass(frozen=True)
class Verdict:
    """error: with which a call is refused; 0: it is done. kill: the process ends by SIGKILL before it. bytes: of a
    write that are done before it ends so."""

    error: int = 0
    kill: bool = False
    bytes: int | None = None


DONE = Verdict()


def run(work: Callable[[], None], folder: Path, decide: Callable[[Call], Verdict]) -> int:
    """How `work` ended: its exit code, or minus the signal. Calls outside the folder are not asked about."""
    child = os.fork()
    if not child:
        try:
            _check(_libc.ptrace(_TRACEME, 0, None, None))
            os.kill(os.getpid(), signal.SIGSTOP)
            _install_filter()
            work()
        finally:
            os._exit(98)  # work ends the process itself
    os.waitpid(child, 0)
    _check(_libc.ptrace(_SETOPTIONS, child, None, _OPTIONS))
    _go_on(child, 0)
    count, torn = 0, False
    while True:
        thread, status = os.waitpid(-1, 0x40000000)  # threads too
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            if thread != child:
                continue
            _reap()
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
        sent, event = os.WSTOPSIG(status), status >> 16
        if sent != signal.SIGTRAP or not event:
            # of a new thread, and of the tracer, are no signals for it
            _go_on(thread, 0 if sent in (signal.SIGSTOP, signal.SIGTRAP) else sent)
            continue
        if event != _SECCOMP_EVENT or torn:
            _go_on(thread, 0)
            continue
        registers = _Registers()
        _check(_libc.ptrace(_GETREGS, thread, None, ctypes.addressof(registers)))
        call = _call(thread, registers, folder, count + 1)
        if call is None:
            if registers.orig_rax in _COPIES:
                _refuse(thread, registers, errno.ENOSYS if registers.orig_rax == 326 else errno.EINVAL)
            _go_on(thread, 0)
            continue
        count += 1
        verdict = decide(call)
        if verdict.bytes is not None and call.data:
            _write_some(call, verdict.bytes)
        if verdict.kill or verdict.bytes is not None:
            torn = True
            os.kill(child, signal.SIGKILL)
            continue
        if verdict.error:
            _refuse(thread, registers, verdict.error)
        _go_on(thread, 0)


def _write_some(call: Call, count: int) -> None:
    """What a killed process had written of a call."""
    with call.paths[0].open("r+b") as file:
        file.seek(call.offset)
        file.write(call.data[:count])


def _reap() -> None:
    """Processes that the traced one left behind."""
    try:
        while os.waitpid(-1, 0x40000000 | os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _go_on(thread: int, sent: int) -> None:
    _libc.ptrace(_CONT, thread, None, sent)  # one that has been killed meanwhile is no error


def _refuse(thread: int, registers: _Registers, error: int) -> None:
    registers.orig_rax = 2**64 - 1
    registers.rax = 2**64 - error
    _check(_libc.ptrace(_SETREGS, thread, None, ctypes.addressof(registers)))


def _call(thread: int, registers: _Registers, folder: Path, number: int) -> Call | None:
    """None for one that changes nothing below the folder."""
    which = int(registers.orig_rax)
    given = [int(getattr(registers, name)) for name in ("rdi", "rsi", "rdx", "r10")]
    if which in _WRITES or which in _OF_FILE:
        path = _opened(thread, given[0])
        if path is None or not _below(path, folder):
            return None
        if which in _OF_FILE:
            kind = _OF_FILE[which].removeprefix("fdata").removeprefix("f")
            kind = {"sync": "fsync"}.get(kind, kind)
            return Call(number, kind, (path,), given[1] if which == 77 else 0)
        data = _data(thread, which, given)
        at = given[3] if which in (18, 296) else _position(thread, given[0], path)
        return Call(number, "write", (path,), at, data)
    if which in _OPENS:
        at = _OPENS[which]
        flags = os.O_CREAT | os.O_TRUNC if which == _CREAT else given[at + 1]
        if not flags & (os.O_CREAT | os.O_TRUNC):
            return None
        path = _path(thread, given[0] if which == _OPENAT else -1, given[at])
        if path is None or not _below(path, folder):
            return None
        exists = path.exists()
        if exists and flags & os.O_TRUNC and not flags & os.O_EXCL:
            return Call(number, "truncate", (path,), 0)
        return Call(number, "create", (path,)) if flags & os.O_CREAT and not exists else None
    if which in _PATHS:
        kind, arguments = _PATHS[which]
        found = [_path(thread, given[f] if f >= 0 else -1, given[p]) for f, p in arguments]
        paths = [path for path in found if path is not None]
        if len(paths) < len(found) or not any(_below(path, folder) for path in paths):
            return None
        if which == 263 and given[2] & 0x200:  # AT_REMOVEDIR
            kind = "rmdir"
        return Call(number, kind, tuple(paths), given[1] if which == _TRUNCATE_OF_PATH else 0)
    return None


def _below(path: Path, folder: Path) -> bool:
    return path == folder or folder in path.parents


def _opened(thread: int, descriptor: int) -> Path | None:
    try:
        name = os.readlink(f"/proc/{thread}/fd/{descriptor}")
    except OSError:
        return None
    return Path(name.removesuffix(" (deleted)")) if name.startswith("/") else None


def _position(thread: int, descriptor: int, path: Path) -> int:
    told = Path(f"/proc/{thread}/fdinfo/{descriptor}").read_text()
    if int(re.findall(r"flags:\s*(\d+)", told)[0], 8) & os.O_APPEND:
        return path.stat().st_size
    return int(re.findall(r"pos:\s*(\d+)", told)[0])


def _path(thread: int, descriptor: int, address: int) -> Path | None:
    text = b""
    while b"\0" not in text:
        piece = _memory(thread, address + len(text), 256 - (address + len(text)) % 256)
        if not piece or len(text) > 4096:
            return None
        text += piece
    name = os.fsdecode(text.partition(b"\0")[0])
    descriptor = ctypes.c_int32(descriptor & 0xFFFFFFFF).value
    start = f"/proc/{thread}/cwd" if descriptor < 0 else f"/proc/{thread}/fd/{descriptor}"
    return Path(os.path.normpath(Path(os.readlink(start), name)))


def _data(thread: int, which: int, given: list[int]) -> bytes:
    if which in (1, 18):
        return _memory(thread, given[1], min(given[2], _MOST))
    vector = _memory(thread, given[1], 16 * given[2])
    return b"".join(_memory(thread, *struct.unpack_from("QQ", vector, 16 * k)) for k in range(given[2]))


def _memory(thread: int, address: int, count: int) -> bytes:
    try:
        with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
            memory.seek(address)
            return memory.read(count)
    except (OSError, ValueError, OverflowError):
        return b""


def _install_filter() -> None:
    """Stop for the tracer at the calls of `_SEEN`; let all others pass."""
    load, equal, give = 0x20, 0x15, 0x06
    program = [(load, 0, 0, 4), (equal, 1, 0, _X86_64), (give, 0, 0, 0x7FFF0000), (load, 0, 0, 0)]
    for k, number in enumerate(_SEEN):
        program.append((equal, len(_SEEN) - k, 0, number))
    program += [(give, 0, 0, 0x7FFF0000), (give, 0, 0, 0x7FF00000)]
    packed = b"".join(struct.pack("HBBI", *line) for line in program)
    code = ctypes.create_string_buffer(packed, len(packed))
    asked = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code)), 16)
    _check(_libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    _check(_libc.prctl(_SET_SECCOMP, 2, ctypes.c_void_p(ctypes.addressof(asked)), 0, 0))


def _check(answer: int) -> None:
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
