import zipfile

import numpy as np
import pytest

from medgraft.errors import DataError
from medgraft.io import read_archive


def arrays():
    big = np.random.default_rng(0).integers(0, 255, (400, 224, 224), dtype=np.uint8)
    return {
        "big": big,
        "small": np.arange(6).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    }


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back_as_numpy_reads_them_and_large_ones_are_mapped(tmp_path, save):
    expected = arrays()
    if save is np.savez_compressed:
        expected["big"] = np.tile(np.arange(224, dtype=np.uint8), (400, 224, 1))
    save(tmp_path / "a.npz", **expected)
    read = read_archive(tmp_path / "a.npz")
    assert read.keys() == expected.keys()
    for name, array in read.items():
        np.testing.assert_array_equal(array, expected[name])
    assert isinstance(read["big"], np.memmap)


def test_python_objects_are_never_unpickled(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="Python objects"):
        read_archive(tmp_path / "a.npz")


def test_missing_foreign_and_damaged_archives_are_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"gone\.npz: cannot be read"):
        read_archive(tmp_path / "gone.npz")
    (tmp_path / "html.npz").write_text("<html>")
    with pytest.raises(DataError, match=r"html\.npz: expected an \.npz archive"):
        read_archive(tmp_path / "html.npz")
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("x.npy", "no array")
    with pytest.raises(DataError, match="no NumPy array"):
        read_archive(tmp_path / "text.npz")
    np.savez_compressed(tmp_path / "bad.npz", x=np.arange(5000))
    data = bytearray((tmp_path / "bad.npz").read_bytes())
    data[400:420] = bytes(20)
    (tmp_path / "bad.npz").write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"bad\.npz"):
        read_archive(tmp_path / "bad.npz")
