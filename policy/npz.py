"""The arrays of an .npz archive that may come from anywhere.

NumPy's own reader allocates what an array's header asks for before it sees how much there is. Here everything is
bounded by what was received, and by a limit, before it is allocated; nothing is ever unpickled.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_ARRAYS = 64
_FLOAT32 = np.dtype("<f4")
# Others cannot be unpacked piece by piece, and so not within a limit.
_BOUNDED_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class ArchiveTooLarge(ValueError):
    """More arrays, or larger ones, than are allowed."""


def read_arrays(data: bytes, *, limit_bytes: int) -> dict[str, NDArray[Any]]:
    """Arrays of float32 or text by their names, writable.

    limit_bytes: of all of them together, unpacked. Raises ArchiveTooLarge, and ValueError for what is no such archive.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if len(members) > _MOST_ARRAYS or sum(member.file_size for member in members) > limit_bytes:
                raise ArchiveTooLarge(f"more than {_MOST_ARRAYS} arrays or {limit_bytes} bytes")
            arrays = {member.filename.removesuffix(".npy"): _array(_content(archive, member)) for member in members}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, MemoryError) as error:
        raise ValueError(f"no archive of arrays: {error}") from None
    if len(arrays) != len(members):
        raise ValueError("two arrays of one name")
    return arrays


def _content(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """At most as much as the archive's directory says, whatever else the packed bytes would come to."""
    if member.compress_type not in _BOUNDED_METHODS:
        raise ValueError(f"{member.filename} is packed in another way than NumPy packs")
    with archive.open(member) as file:
        return file.read(member.file_size)


def _array(content: bytes) -> NDArray[Any]:
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"an array of format {version}")
    shape, column_major, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype != _FLOAT32 and dtype.kind != "U":
        raise ValueError(f"an array of {dtype} where float32 is expected")
    body = content[file.tell() :]
    if math.prod(shape) * dtype.itemsize != len(body):
        raise ValueError(f"an array of shape {shape} in {len(body)} bytes")
    return np.frombuffer(body, dtype).reshape(shape, order="F" if column_major else "C").copy()
