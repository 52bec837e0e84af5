"""Is this machine ready? Versions, builds, devices, codecs, offline weights, disk; nothing touches a network.

A broken installation must not break the examination: torch, torchvision and the hub's cache are imported
inside the checks, and the packaged weights are found without importing the room that needs timm.
"""

import dataclasses
import hashlib
import importlib
import importlib.metadata
import importlib.resources
import importlib.util
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

import psutil
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from PIL import features

from medgraft.machine import home

__all__ = ["Check", "Diagnosis", "doctor"]

_GIB: Final = 2**30
_LOW_DISK: Final = 2 * _GIB
_NO_DISK: Final = 64 * 2**20
"""What the image cache keeps free, see `medgraft.data.decoded.images.SPARE_BYTES`."""
_LOW_MEMORY: Final = 2 * _GIB
_SHOWN: Final = 8
_WEIGHTS: Final = (".safetensors", ".bin", ".pth", ".pt")
# What a wrong pair of torch and torchvision raises depends on which library meets the other first.
_BROKEN_IMPORT: Final = (ImportError, RuntimeError, OSError, AttributeError)
_CODECS: Final = {
    "jpg": ("JPEG", "fail"),
    "zlib": ("PNG", "fail"),
    "libtiff": ("compressed TIFF", "warn"),
    "jpg_2000": ("JPEG 2000 inside TIFF", "warn"),
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One finding: what was looked at, ``ok``, ``warn`` or ``fail``, and what to do about it."""

    name: str
    status: Literal["ok", "warn", "fail"]
    message: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """All findings, in the order they were made."""

    checks: tuple[Check, ...]

    @property
    def is_healthy(self) -> bool:
        """Whether nothing failed; warnings are allowed."""
        return all(check.status != "fail" for check in self.checks)


def doctor() -> Diagnosis:
    """What this machine and this installation can do, and what is wrong with them. No network attempt.

    Examples:
        >>> [check.name for check in doctor().checks][0]
        'python'
    """
    parts = (_python, _packages, _builds, _cpu, _cuda, _mps, _memory, _codecs, _dicom, _packaged, _hub, _disk, _home)
    return Diagnosis(checks=tuple(check for part in parts for check in part()))


def _python() -> list[Check]:
    wanted = _metadata().get("Requires-Python") or ""
    version = platform.python_version()
    if wanted and not SpecifierSet(wanted).contains(version, prereleases=True):
        return [_fail("python", f"expected Python {wanted}, got {version}. Make a new environment with a newer one.")]
    return [_ok("python", f"{version} ({platform.system()} {platform.machine()}) at {sys.executable}")]


def _metadata() -> Any:
    try:
        return importlib.metadata.metadata("medgraft")
    except importlib.metadata.PackageNotFoundError:
        return {}


def _packages() -> list[Check]:
    """One line when all is well, else one per package that is missing or too old."""
    needed = [Requirement(text) for text in _requires("medgraft")]
    if not needed:
        return [_warn("packages", "medgraft is not installed, only importable. Run: pip install .")]
    versions, wrong = [], []
    for requirement in needed:
        version = _version(requirement.name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            state = "none" if version is None else version
            message = f"expected {requirement}, got {state}. Run: pip install --upgrade '{requirement}'"
            wrong.append(_fail(f"package {requirement.name}", message))
        versions.append(f"{requirement.name} {version}")
    return wrong or [_ok("packages", f"medgraft {_version('medgraft')}; {', '.join(versions)}")]


def _requires(package: str) -> list[str]:
    """Requirements of an installed package that hold here, without those of its extras."""
    try:
        lines = importlib.metadata.requires(package) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    requirements = [Requirement(line) for line in lines]
    return [
        f"{needed.name}{needed.specifier}"
        for needed in requirements
        if needed.marker is None or needed.marker.evaluate({"extra": ""})
    ]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _builds() -> list[Check]:
    """Whether torch and torchvision come from one build; what their files say first, then an import."""
    advice = "Install both in one command and from one index: pip install --force-reinstall torch torchvision"
    torch_build, vision_build = _build_of("torch"), _build_of("torchvision")
    if torch_build is None or vision_build is None:
        return []  # told by the packages
    pair = f"torch {torch_build} and torchvision {vision_build}"
    suffixes = [build.partition("+")[2] for build in (torch_build, vision_build)]
    wanted = next((Requirement(r) for r in _requires("torchvision") if Requirement(r).name == "torch"), None)
    if all(suffixes) and suffixes[0] != suffixes[1]:
        return [_fail("torch build", f"expected one build, got {pair}. {advice}")]
    if wanted is not None and not wanted.specifier.contains(torch_build.partition("+")[0], prereleases=True):
        return [_fail("torch build", f"torchvision {vision_build} expects {wanted}, got {torch_build}. {advice}")]
    try:
        torch, vision = importlib.import_module("torch"), importlib.import_module("torchvision")
        vision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except _BROKEN_IMPORT as error:
        return [_fail("torch build", f"{pair} do not work together ({_reason(error)}). {advice}")]
    return [_ok("torch build", pair)]


def _build_of(package: str) -> str | None:
    """Version with its build suffix, read from the package's own file without importing the package.

    The metadata of wheels from PyPI lack the suffix that the file has.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).with_name("version.py")
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    match = re.search(r"^__version__\s*(?::\s*\w+\s*)?=\s*['\"]([^'\"]+)", text, re.MULTILINE)
    return match[1] if match else _version(package)


def _cpu() -> list[Check]:
    torch = _torch()
    cores = _cores()
    if torch is None:
        return [_warn("cpu", f"{cores} cores; torch cannot be imported, so nothing more is known.")]
    threads = torch.get_num_threads()
    has_units = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    units = "bf16 units" if has_units else "no bf16 units (training stays in float32)"
    text = f"{cores} cores, torch uses {threads} threads, {units}"
    quota = _quota()
    if quota is not None and threads > quota + 1:
        advice = f"Set OMP_NUM_THREADS={max(1, round(quota))}: more threads than that slow each other down."
        return [_warn("cpu", f"{text}, but this container may use {quota:g} cores. {advice}")]
    if threads < cores // 2:
        return [_warn("cpu", f"{text}. OMP_NUM_THREADS or torch.set_num_threads holds it back; raise it.")]
    return [_ok("cpu", text)]


def _torch() -> Any:
    try:
        return importlib.import_module("torch")
    except _BROKEN_IMPORT:
        return None  # _builds names the reason


def _cores() -> int:
    # sched_getaffinity knows what a scheduler gave this process; it is missing on macOS and Windows.
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _quota(path: Path = Path("/sys/fs/cgroup/cpu.max")) -> float | None:
    """Cores that the control group grants, or None without a limit."""
    try:
        limit, period = path.read_text().split()
    except (OSError, ValueError):
        return None
    return None if limit == "max" else int(limit) / int(period)


def _cuda() -> list[Check]:
    torch = _torch()
    if torch is None:
        return []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        is_there = torch.cuda.is_available()
    if not is_there:
        if caught:
            return [_warn("cuda", f"not usable: {_reason(caught[0].message)}. Training will use the CPU.")]
        message = f"none ({'a CPU build of torch' if torch.version.cuda is None else 'no device found'})"
        return [_ok("cuda", message)]
    return [_cuda_device(torch, index) for index in range(torch.cuda.device_count())]


def _cuda_device(torch: Any, index: int) -> Check:
    name = f"cuda:{index}"
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.ones(8, device=name).sum().item()
            free, total = torch.cuda.mem_get_info(index)
            has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    except RuntimeError as error:
        return _fail(name, f"a first sum failed ({_reason(error)}). Update the driver, or use --device cpu.")
    units = "bf16" if has_bf16 else "no bf16"
    text = f"{torch.cuda.get_device_name(index)}, {free / _GIB:.1f} of {total / _GIB:.1f} GiB free, {units}"
    return _warn(name, f"{text}; {_reason(caught[0].message)}") if caught else _ok(name, text)


def _mps() -> list[Check]:
    torch = _torch()
    if torch is None or not torch.backends.mps.is_available():
        return []
    return [_ok("mps", "Apple GPU")]


def _memory() -> list[Check]:
    memory = psutil.virtual_memory()
    text = f"{memory.available / _GIB:.1f} of {memory.total / _GIB:.1f} GiB available"
    if memory.available < _LOW_MEMORY:
        return [_warn("memory", f"{text}. Close other programs or lower --set train.batch_size.")]
    return [_ok("memory", text)]


def _codecs() -> list[Check]:
    there, checks = [], []
    for codec, (kind, severity) in _CODECS.items():
        if features.check(codec):
            there.append(f"{kind} ({codec} {features.version(codec)})")
        else:
            message = f"Pillow was built without {codec}: {kind} files cannot be read. Run: pip install pillow"
            checks.append(_fail("codecs", message) if severity == "fail" else _warn("codecs", message))
    return [_ok("codecs", ", ".join(there)), *checks]


def _dicom() -> list[Check]:
    """Which plugin decodes which transfer syntax; what none decodes needs the extra."""
    try:
        from medgraft.io.dicom_pixels import decoders

        by_syntax = decoders()
    except _BROKEN_IMPORT as error:
        return [_fail("dicom", f"pydicom cannot be imported ({error}). Run: pip install --force-reinstall pydicom")]
    return [
        _ok("dicom", f"{syntax}: {', '.join(plugins)}")
        if plugins
        else _warn("dicom", f"{syntax}: no decoder. Run: pip install 'medgraft[dicom]'")
        for syntax, plugins in by_syntax.items()
    ]


def _packaged() -> list[Check]:
    folder = Path(str(importlib.resources.files("medgraft"))) / "backbones" / "packaged_weights"
    manifests = sorted(folder.glob("*.json"))
    if not manifests:
        return [_fail("packaged weights", f"expected a manifest in {folder}, got none. Install medgraft again.")]
    checks = []
    for manifest in manifests:
        weights = manifest.with_suffix(".safetensors")
        try:
            expected = str(json.loads(manifest.read_text(encoding="utf-8"))["sha256"])
            digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        except (OSError, ValueError, KeyError, TypeError) as error:
            message = f"{manifest.stem} cannot be read ({_reason(error)}). Install medgraft again."
            checks.append(_fail("packaged weights", message))
            continue
        if digest != expected:
            message = f"expected sha256 {expected}, got {digest} ({weights}). Install medgraft again."
            checks.append(_fail("packaged weights", message))
        else:
            size = weights.stat().st_size / 1e6
            checks.append(_ok("packaged weights", f"{manifest.stem} ({size:.1f} MB, sha256 {digest[:12]}…)"))
    return checks


def _hub() -> list[Check]:
    """Where the hub's cache lies and which timm weights are in it, by looking at its folders alone."""
    try:
        constants = importlib.import_module("huggingface_hub.constants")
    except ImportError as error:
        return [_fail("hub cache", f"huggingface_hub cannot be imported ({_reason(error)}). Run: pip install timm")]
    cache = Path(constants.HF_HUB_CACHE)
    try:
        names = sorted(
            folder.name.removeprefix("models--timm--")
            for folder in cache.glob("models--timm--*")
            if any(file.suffix in _WEIGHTS and file.is_file() for file in folder.glob("snapshots/*/*"))
        )
    except OSError as error:
        return [_warn("hub cache", f"{cache} cannot be read ({_reason(error)}). Check its rights, or set HF_HOME.")]
    if not names:
        return [_ok("hub cache", f"{cache} holds no timm weights: offline use needs --weights PATH or none")]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return [_ok("hub cache", f"{cache} holds weights of {', '.join(names[:_SHOWN])}{more}")]


def _disk() -> list[Check]:
    here = Path.cwd()
    return [_space("disk here", here), _space("disk of MEDGRAFT_HOME", home())]


def _space(name: str, path: Path) -> Check:
    nearest = _nearest(path)
    try:
        free = shutil.disk_usage(nearest).free
    except OSError as error:
        return _fail(name, f"{nearest} cannot be looked at ({_reason(error)}). Choose another folder.")
    text = f"{free / _GIB:.1f} GiB free at {path}"
    if free < _NO_DISK:
        return _fail(name, f"{text}. Free space or choose another folder.")
    return _warn(name, f"{text}: little for decoded images. Free space.") if free < _LOW_DISK else _ok(name, text)


def _home() -> list[Check]:
    folder = home()
    nearest = _nearest(folder)
    try:
        with tempfile.TemporaryFile(dir=nearest) as file:
            file.write(b"0")
    except OSError as error:
        message = f"{folder} cannot be written ({_reason(error)}). Set MEDGRAFT_HOME to a folder of your own."
        return [_fail("home", message)]
    return [_ok("home", f"{folder} {'is writable' if folder.is_dir() else 'can be made'}")]


def _nearest(path: Path) -> Path:
    """`path`, or the first folder above it that exists."""
    full = path.absolute()
    # Path.exists raises where a folder above may not be searched.
    return next((folder for folder in (full, *full.parents) if os.access(folder, os.F_OK)), full)


def _reason(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200].rstrip(".") if lines else type(error).__name__


def _ok(name: str, message: str) -> Check:
    return Check(name=name, status="ok", message=message)


def _warn(name: str, message: str) -> Check:
    return Check(name=name, status="warn", message=message)


def _fail(name: str, message: str) -> Check:
    return Check(name=name, status="fail", message=message)
