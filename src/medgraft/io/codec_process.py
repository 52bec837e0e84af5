"""Pixels from a codec that may crash, decoded in a process of its own.

On damaged files GDCM ends the whole process instead of raising an error (8 of 10 000 mutated files,
`benchmarks/fuzz_decoding.py`), and for lossless JPEG there is no other decoder without the GPL. One child is started
when the first such file comes, and again after every crash.
"""

import atexit
import json
import os
import selectors
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from medgraft.errors import DataError

__all__ = ["decode_apart"]

_SECONDS: Final = 10.0
_START_SECONDS: Final = 120.0
_lock = threading.Lock()
_children: list["subprocess.Popen[bytes]"] = []


def decode_apart(path: Path, plugin: str) -> np.ndarray:
    """All frames of a DICOM file as stored, decoded by `plugin` of pydicom in another process.

    Args:
        path: Of the file.
        plugin: Name of pydicom's decoding plugin.

    Raises:
        DataError: The file is damaged, or the codec crashed or took over ten seconds.
    """
    with _lock:
        child = _started()
        request = json.dumps({"path": os.fspath(path), "plugin": plugin}).encode() + b"\n"
        try:
            _input(child).write(request)
            _input(child).flush()
            answer = json.loads(_line(child))
            if "error" in answer:
                raise DataError(f"{path}: damaged or not readable as DICOM ({answer['error']}). Export it again.")
            return _array(child, answer)
        except (OSError, EOFError, ValueError) as error:
            _stop(child)
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path}: damaged; its decoder ({plugin}) failed on it. Export it again.") from error


def _started() -> "subprocess.Popen[bytes]":
    if _children and _children[0].poll() is None:
        return _children[0]
    _children.clear()
    # What the codec prints of damaged files would stand between the lines of the program.
    child = subprocess.Popen(
        [sys.executable, "-m", "medgraft.io.codec_process"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    _children.append(child)
    atexit.register(_stop, child)
    if _line(child, _START_SECONDS) != b"ready\n":
        raise EOFError
    return child


def _stop(child: "subprocess.Popen[bytes]") -> None:
    child.kill()
    child.wait()
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            stream.close()
    if child in _children:
        _children.remove(child)


def _input(child: "subprocess.Popen[bytes]") -> IO[bytes]:
    if child.stdin is None:
        raise EOFError
    return child.stdin


def _read(child: "subprocess.Popen[bytes]", count: int, seconds: float) -> bytes:
    if child.stdout is None:
        raise EOFError
    with selectors.DefaultSelector() as waiting:
        waiting.register(child.stdout, selectors.EVENT_READ)
        if not waiting.select(seconds):
            raise EOFError
    found = os.read(child.stdout.fileno(), count)
    if not found:
        raise EOFError
    return found


def _line(child: "subprocess.Popen[bytes]", seconds: float = _SECONDS) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        line += _read(child, 1, seconds)
    return line


def _array(child: "subprocess.Popen[bytes]", answer: Mapping[str, Any]) -> np.ndarray:
    found = np.empty(answer["shape"], dtype=answer["dtype"])
    flat, done = found.reshape(-1).view(np.uint8), 0
    while done < found.nbytes:
        block = _read(child, found.nbytes - done, _SECONDS)
        flat[done : done + len(block)] = np.frombuffer(block, np.uint8)
        done += len(block)
    return found


def _serve() -> None:
    """The child: one file after the other until its input ends."""
    from medgraft.io.dicom import BROKEN, stored_pixels

    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # Codecs print to the standard output, too.
    os.dup2(2, 1)
    out.write(b"ready\n")
    out.flush()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        try:
            found = np.ascontiguousarray(stored_pixels(Path(request["path"]), request["plugin"]))
        except (*BROKEN, MemoryError) as error:
            out.write(json.dumps({"error": " ".join(str(error).split())[:160]}).encode() + b"\n")
        else:
            out.write(json.dumps({"shape": found.shape, "dtype": found.dtype.str}).encode() + b"\n")
            out.write(found.tobytes())
        out.flush()


if __name__ == "__main__":
    _serve()
