"""Buffers of many kinds, by what is special about each."""

import array
import ctypes


class Integers(ctypes.BigEndianStructure):
    _fields_ = [("one", ctypes.c_uint16), ("two", ctypes.c_uint16)]


BUFFERS = {
    "bytes": lambda: b"1234567",
    "bytearray": lambda: bytearray(7),
    "small": lambda: bytearray(2),
    "empty": bytearray,
    "integers": lambda: array.array("I", [0, 0]),
    "table": lambda: memoryview(bytearray(6)).cast("B", (2, 3)),
    "every other": lambda: memoryview(bytearray(14))[::2],
    "read-only": lambda: memoryview(bytearray(7)).toreadonly(),
    "structure": Integers,
}
