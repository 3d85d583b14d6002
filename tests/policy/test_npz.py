"""Archives from anywhere: what is read is bounded by what was received, and nothing is unpickled."""

import io
import pickle
import resource
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roadside.policy.npz import ArchiveTooLarge, read_arrays

LIMIT = 1_000_000


def archive(**arrays) -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


def zipped(name: str, content: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as whole:
        whole.writestr(name, content)
    return file.getvalue()


def header(descr: str, shape: str) -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def test_what_numpy_writes_is_read_as_numpy_reads_it():
    written = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array("words"), "c": np.zeros(0, np.float32)}
    written["d"] = np.asfortranarray(written["a"])
    back = read_arrays(archive(**written), limit_bytes=LIMIT)
    assert back.keys() == written.keys()
    assert all(np.array_equal(back[name], array) for name, array in written.items())
    assert back["a"].flags.writeable


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("something was unpickled",))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no archive",
        b"PK\x03\x04 broken",
        pickle.dumps(Bomb()),
        zipped("a.npy", pickle.dumps(Bomb())),
        archive(a=np.array([Bomb()], object)),
        archive(a=np.zeros(3, np.float64)),
        archive(a=np.zeros(3, np.complex64)),
        zipped("a.npy", header("<f4", "(1000000000000,)")),
        zipped("a.npy", header("<f4", "(-1,)") + b"\x00" * 4),
        zipped("a.npy", header("<f4", "(2,)") + b"\x00" * 4),
        zipped("a.npy", header("<U0", "(3,)")),
        zipped("a.npy", header("<f4", "(1,)") + b"\x00" * 4, zipfile.ZIP_LZMA),
        archive(a=np.zeros(100, np.float32))[:-30],
    ],
    # Not by their bytes: an archive's first ones tell the time, at which workers that share the tests differ.
    ids=lambda data: f"{len(data)} bytes",
)
def test_what_is_no_archive_of_plain_arrays_is_refused(data):
    with pytest.raises(ValueError, match=r"."):
        read_arrays(data, limit_bytes=LIMIT)


def test_more_than_the_limit_is_refused_before_it_is_unpacked():
    bomb = archive(a=np.zeros(50_000_000, np.float32))
    assert len(bomb) < LIMIT, "small enough to be sent"
    with pytest.raises(ArchiveTooLarge):
        read_arrays(bomb, limit_bytes=LIMIT)
    with pytest.raises(ArchiveTooLarge):
        read_arrays(archive(**{f"a{i}": np.zeros(1, np.float32) for i in range(65)}), limit_bytes=LIMIT)


def test_a_directory_that_understates_what_is_packed_gets_no_more_than_it_says():
    size = 200_000_000
    bomb = bytearray(zipped("a.npy", b"\x00" * size))
    told = size.to_bytes(4, "little")
    assert bomb.count(told) == 2, "in the member's own header and in the directory"
    bomb = bomb.replace(told, (1000).to_bytes(4, "little"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"."):
        read_arrays(bytes(bomb), limit_bytes=LIMIT)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "kilobytes"


GOOD = archive(a=np.arange(50, dtype=np.float32), b=np.array("words"))


@settings(deadline=None, max_examples=200)
@given(at=st.integers(0, len(GOOD) - 1), new=st.integers(0, 255), cut=st.integers(0, len(GOOD)))
def test_damage_is_a_value_error_or_nothing(at, new, cut):
    damaged = bytearray(GOOD)
    damaged[at] = new
    for data in (bytes(damaged), GOOD[:cut]):
        try:
            read_arrays(data, limit_bytes=LIMIT)
        except ValueError:
            continue
