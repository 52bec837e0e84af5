"""Pixels from a codec that may crash, decoded in a process of its own.

On damaged files GDCM ends the whole process instead of raising an error (8 of 10 000 mutated files,
`benchmarks/fuzz_decoding.py`), and for lossless JPEG there is no other decoder without the GPL. One child is started
when the first such file comes, and again after every crash.
"""

import atexit
import contextlib
import dataclasses
import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from medgraft.errors import DataError, RunError

__all__ = ["decode_apart", "serve"]

_SECONDS: Final = 10.0
_START_SECONDS: Final = 120.0
_START: Final = "import sys; sys.path[:] = sys.argv[1:]; from medgraft.io.codec_process import serve; serve()"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Child:
    """A running decoder and what it has answered so far: a description and bytes, or None at its end."""

    process: "subprocess.Popen[bytes]"
    answers: "queue.Queue[tuple[dict[str, Any], bytes] | None]"


_lock = threading.Lock()
_children: list[_Child] = []


def decode_apart(path: Path, plugin: str, index: int | None = None) -> np.ndarray:
    """All frames of a DICOM file, or one, as stored, decoded by `plugin` of pydicom in another process.

    Args:
        path: The DICOM file.
        plugin: Name of pydicom's decoding plugin.
        index: Number of the only frame that is wanted, from 0; None for all.

    Raises:
        DataError: The file is damaged, or the codec crashed or took over ten seconds.
        RunError: The process cannot be started.
    """
    with _lock:
        child = _started()
        try:
            answer, data = _asked(child, path, plugin, index)
        except (OSError, EOFError, queue.Empty) as error:
            _stop(child)
            raise DataError(f"{path}: damaged; its decoder ({plugin}) failed on it. Export it again.") from error
        except BaseException:
            # Whatever came between, its answer must not be taken for the next file's.
            _stop(child)
            raise
    if "error" in answer:
        raise DataError(f"{path}: damaged or not readable as DICOM ({answer['error']}). Export it again.")
    return np.frombuffer(data, dtype=answer["dtype"]).reshape(answer["shape"])


def _asked(child: _Child, path: Path, plugin: str, index: int | None) -> tuple[dict[str, Any], bytes]:
    """What the child answers for one file: a description, and the bytes of its pixels.

    Args:
        child: A running decoder.
        path: The DICOM file.
        plugin: Name of pydicom's decoding plugin.
        index: Number of the only frame that is wanted; None for all.
    """
    stream = child.process.stdin
    if stream is None:
        raise EOFError
    stream.write(json.dumps({"path": os.fspath(path), "plugin": plugin, "index": index}).encode() + b"\n")
    stream.flush()
    answer = child.answers.get(timeout=_SECONDS)
    if answer is None:
        raise EOFError
    return answer


def _started() -> _Child:
    if _children and _children[0].process.poll() is None:
        return _children[0]
    for child in list(_children):
        _stop(child)
    try:
        # What the codec prints of damaged files would stand between the lines of the program.
        process = subprocess.Popen(
            # Not `-m`, which would put the folder of the moment before everything else.
            [sys.executable, "-c", _START, *filter(None, sys.path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    except OSError as error:
        raise RunError(f"could not start the process that decodes lossless JPEG: {error}.") from error
    child = _Child(process=process, answers=queue.Queue())
    # A thread, because a pipe cannot be waited for with a limit on every system.
    threading.Thread(target=_listen, args=(process.stdout, child.answers), daemon=True).start()
    _children.append(child)
    atexit.register(_stop, child)
    try:
        is_there = child.answers.get(timeout=_START_SECONDS) is not None
    except queue.Empty:
        is_there = False
    if not is_there:
        _stop(child)
        raise RunError("could not start the process that decodes lossless JPEG. See medgraft doctor.")
    return child


def _listen(stream: IO[bytes], answers: "queue.Queue[tuple[dict[str, Any], bytes] | None]") -> None:
    with contextlib.suppress(OSError, ValueError):
        while line := stream.readline():
            answer = json.loads(line)
            size = int(answer.get("bytes", 0))
            data = stream.read(size)
            if len(data) < size:
                break
            answers.put((answer, data))
    answers.put(None)


def _stop(child: _Child) -> None:
    child.process.kill()
    child.process.wait()
    if child.process.stdin is not None:
        with contextlib.suppress(OSError):
            child.process.stdin.close()
    if child in _children:
        _children.remove(child)


def serve() -> None:
    """The child: one file after the other until its input ends."""
    from medgraft.io.dicom_open import BROKEN
    from medgraft.io.dicom_pixels import stored_pixels

    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # Codecs print to the standard output, too.
    os.dup2(2, 1)
    out.write(b"{}\n")
    out.flush()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        data, answer = b"", {}
        try:
            pixels = np.ascontiguousarray(stored_pixels(Path(request["path"]), request["plugin"], request["index"]))
            data = pixels.tobytes()
            answer = {"shape": pixels.shape, "dtype": pixels.dtype.str, "bytes": len(data)}
        except (*BROKEN, MemoryError) as error:
            answer = {"error": " ".join(str(error).split())[:160]}
        out.write(json.dumps(answer).encode() + b"\n" + data)
        out.flush()
