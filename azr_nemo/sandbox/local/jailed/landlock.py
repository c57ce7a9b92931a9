"""Landlock: gives up every right to files and TCP ports but reading the given folders. Needs no privilege; cannot be undone."""

import ctypes
import os
import struct

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same numbers on every architecture
READ_FILE, READ_DIR = 4, 8
# Rights to files that each version of the interface knows; the last also holds for newer ones.
FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}

_libc = ctypes.CDLL(None, use_errno=True)


def abi() -> int:
    """The kernel's version of the interface; 0 when it has none or has it switched off."""
    return max(0, _libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), 1))


def restrict_to_reading(folders: list[str]) -> int:
    """Leaves this process and its children the right to read below `folders` and nothing else. Returns the version of the interface that was used,
    0 when there is none. Raises OSError. The caller has set no_new_privs."""
    version = abi()
    if version == 0:
        return 0
    files = FILE_RIGHTS.get(version, FILE_RIGHTS[5])
    ports = 0b11 if version >= 4 else 0  # bind and connect TCP
    scopes = 0b11 if version >= 6 else 0  # abstract sockets, signals to processes outside
    attributes = struct.pack("QQQ", files, ports, scopes)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = _call(CREATE_RULESET, ctypes.c_char_p(attributes), ctypes.c_size_t(size), 0)
    try:
        for folder in folders:
            fd = os.open(folder, os.O_PATH | os.O_CLOEXEC)
            try:
                rule = struct.pack("=Qi", READ_FILE | READ_DIR if os.path.isdir(folder) else READ_FILE, fd)
                _call(ADD_RULE, ruleset, 1, ctypes.c_char_p(rule), 0)
            finally:
                os.close(fd)
        _call(RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return version


def _call(number: int, *arguments: object) -> int:
    result = _libc.syscall(number, *arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"landlock: {os.strerror(error)}")
    return result
