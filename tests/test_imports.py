"""The rules of the house: who may import whom, and how large a thing may grow."""

import ast
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import medgraft

ROOT = Path(medgraft.__file__).parent
MODULES = {path.relative_to(ROOT).as_posix(): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}
ROOMS = (
    *("errors", "version", "listener", "machine", "types", "as_json", "files", "config", "io", "data", "phantom"),
    *(
        "backbones",
        "sources",
        "cuts",
        "transfer",
        "metrics",
        "train",
        "study",
        "prepare",
        "evaluate",
        "analysis",
        "result",
    ),
    *("search", "report", "deploy", "judge", "setup", "run", "cli"),
)
# The doors of the package: importing them is what users do, so they may look into every room.
DOORS = ("__init__.py", "__main__.py", "api.py", "estimator.py")
FOUNDATION = {"numpy", "pandas", "torch", "safetensors"}
# Where else a library may enter: a room ("data/") or one file of it.
ADAPTERS = {
    "PIL": ("io/", "phantom/phantom.py", "judge/examples.py", "judge/overlays.py", "run/doctor.py"),
    "accelerate": ("train/loop.py",),
    "highdicom": ("io/dicom_seg.py",),
    "huggingface_hub": ("backbones/timm_models.py", "backbones/monai_models.py", "sources/fetch.py"),
    "jinja2": ("report/environment.py",),
    "markupsafe": ("report/page.py", "report/comparison_page.py", "report/analysis_page.py"),
    "matplotlib": ("report/",),
    "monai": (
        "backbones/monai_models.py",
        "io/resample.py",
        "metrics/overlap.py",
        "train/mask_losses.py",
        "train/outputs.py",
        "transfer/decoders.py",
    ),
    "nibabel": ("io/nifti.py",),
    "packaging": ("run/doctor.py",),
    "psutil": ("machine.py", "run/doctor.py", "search/forecast.py"),
    "pydantic": ("config.py", "as_json.py"),
    "rich": ("cli/program.py", "cli/output.py", "cli/terminal.py"),
    "segmentation_models_pytorch": ("transfer/decoders.py",),
    "scipy": ("data/", "phantom/", "evaluate/", "analysis/"),
    "peft": ("transfer/adapters.py",),
    "sklearn": ("estimator.py", "train/classical.py", "analysis/transferability.py"),
    "timm": ("backbones/timm_models.py", "backbones/packaged.py", "backbones/lift.py", "backbones/variants.py"),
    "torchvision": ("backbones/torchvision_models.py",),
    "torch_pruning": ("transfer/slim.py",),
    "typer": ("cli/",),
    "pydicom": ("io/dicom.py", "io/dicom_header.py", "io/dicom_open.py", "io/dicom_pixels.py", "io/dicom_seg.py"),
    "yaml": ("config.py", "setup/folder.py", "cli/options.py"),
}
# Larger than the house wishes, each for a reason.
LONG_FUNCTIONS: dict[tuple[str, str], str] = {}
MANY_PARAMETERS = {
    ("cli/commands.py", "fit"): "one parameter per option",
    ("cli/commands.py", "check"): "one parameter per option",
    ("cli/commands.py", "evaluate"): "one parameter per option",
    ("cli/comparisons.py", "compare"): "one parameter per option",
    ("cli/comparisons.py", "advise"): "one parameter per option",
    ("cli/comparisons.py", "analyze"): "one parameter per option",
    ("data/cohort/labelled.py", "read_cohort"): "one parameter per way of naming things",
    ("estimator.py", "__init__"): "scikit-learn reads hyperparameters from the signature",
}


def room_of(name: str) -> str:
    return name.partition("/")[0].removesuffix(".py")


def imports(name: str) -> Iterator[tuple[int, str, list[str]]]:
    """Line, module and imported names of every import, wherever in the file it stands."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, []
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or ""), [alias.name for alias in node.names]


def functions(name: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def code_lines(name: str, function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the body that are neither docstring, comment nor empty."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if not body:
        return 0
    lines = MODULES[name].read_text(encoding="utf-8").splitlines()[body[0].lineno - 1 : function.end_lineno]
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in lines)


def num_parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    given = function.args
    positional = [*given.posonlyargs, *given.args]
    if positional and positional[0].arg in ("self", "cls"):
        positional = positional[1:]
    return len(positional) + len(given.kwonlyargs) + bool(given.vararg) + bool(given.kwarg)


def test_a_room_imports_earlier_rooms_only():
    wrong = []
    for name in MODULES:
        if name in DOORS:
            continue
        here = ROOMS.index(room_of(name))
        for line, module, names in imports(name):
            parts = module.split(".")
            if parts[0] == "medgraft":
                # `import medgraft` and names out of it reach the doors, and so every room.
                targets = parts[1:2] or names or ["the whole package"]
                wrong += [f"{name}:{line} {t}" for t in targets if t not in ROOMS or ROOMS.index(t) > here]
    assert wrong == []


@pytest.mark.parametrize("line", ["import medgraft", "from medgraft import fit", "import medgraft as m"])
def test_the_order_sees_imports_of_the_whole_package(line, monkeypatch):
    monkeypatch.setitem(TREES, "deploy/predict.py", ast.parse(line))
    with pytest.raises(AssertionError):
        test_a_room_imports_earlier_rooms_only()


def test_every_room_is_in_the_order():
    assert {room_of(name) for name in MODULES if name not in DOORS} <= set(ROOMS)


def test_imports_within_the_package_are_by_full_name():
    wrong = [f"{name}:{line}" for name in MODULES for line, module, _ in imports(name) if module.startswith(".")]
    assert wrong == []


def test_no_import_takes_everything():
    assert [f"{name}:{line}" for name in MODULES for line, _, names in imports(name) if "*" in names] == []


def test_nothing_private_leaves_its_module():
    wrong = []
    for name in MODULES:
        for line, module, names in imports(name):
            if module.startswith("medgraft"):
                private = [n for n in (*module.split("."), *names) if n.startswith("_") and not n.startswith("__")]
                wrong += [f"{name}:{line} {n}" for n in private]
    assert wrong == []


def test_libraries_enter_through_their_adapters():
    known = FOUNDATION | {"medgraft"} | set(sys.stdlib_module_names)
    wrong = []
    for name in MODULES:
        for line, module, _ in imports(name):
            library = module.partition(".")[0]
            if library in known:
                continue
            doors = ADAPTERS.get(library, ())
            if not any(name == door or (door.endswith("/") and name.startswith(door)) for door in doors):
                wrong.append(f"{name}:{line} {library}")
    assert wrong == []


def test_no_adapter_is_listed_in_vain():
    used = {(module.partition(".")[0], name) for name in MODULES for _, module, _ in imports(name)}
    for library, doors in ADAPTERS.items():
        for door in doors:
            assert any(found == library and name.startswith(door) for found, name in used), (library, door)


def test_importing_the_package_is_light():
    code = (
        "import json, sys, time; start = time.perf_counter(); import medgraft; "
        "seconds = time.perf_counter() - start; dir(medgraft); "
        "print(json.dumps([seconds, sorted({name.partition('.')[0] for name in sys.modules})]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, loaded = json.loads(done.stdout)
    assert seconds < 1
    assert not {"torch", "timm", "pandas", "numpy", "scipy", "sklearn", "matplotlib", "pydantic"} & set(loaded)
    assert done.stderr == ""


@pytest.mark.parametrize("name", [name for name in MODULES if name != "__main__.py"])
def test_public_names_exist(name):
    module = importlib.import_module("medgraft." + name.removesuffix(".py").replace("/", ".").removesuffix(".__init__"))
    if name == "__init__.py":
        module = medgraft
    public = module.__all__
    assert len(public) == len(set(public))
    assert all(hasattr(module, item) for item in public)


def listed(name: str) -> set[str]:
    """What a module lists as public."""
    for node in TREES[name].body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == "__all__" and isinstance(node.value, ast.List):
            return {item.value for item in node.value.elts if isinstance(item, ast.Constant)}
    return set()


def test_what_another_module_takes_stands_in_the_list_of_its_own():
    by_module = {"medgraft." + name.removesuffix(".py").replace("/", "."): name for name in MODULES}
    by_module = {module.removesuffix(".__init__"): name for module, name in by_module.items()}
    wrong = []
    for name in MODULES:
        for line, module, names in imports(name):
            if module in by_module:
                public = listed(by_module[module])
                wrong += [f"{name}:{line} {n}" for n in names if n not in public and f"{module}.{n}" not in by_module]
    assert wrong == []


def test_no_two_places_share_more_than_12_lines():
    """Lists of options apart: typer reads a command's options from its own signature."""
    places: dict[tuple[str, ...], list[str]] = {}
    for name, path in MODULES.items():
        numbered = [(number, line.strip()) for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)]
        said = [(number, line) for number, line in numbered if line and not line.startswith(("#", "import ", "from "))]
        for start in range(len(said) - 12):
            window = said[start : start + 13]
            places.setdefault(tuple(line for _, line in window), []).append(f"{name}:{window[0][0]}")
    shared = [found for found in places.values() if len(found) > 1]
    assert [
        found
        for found in shared
        if not all(place.startswith(("cli/commands.py", "cli/comparisons.py")) for place in found)
    ] == []


def test_the_package_has_no_other_public_names():
    with pytest.raises(AttributeError, match="has no attribute 'trainer'"):
        medgraft.trainer  # noqa: B018
    assert sorted(medgraft.__all__) == dir(medgraft)


def test_no_module_is_called_after_nothing():
    vague = {"utils", "util", "helpers", "helper", "common", "misc", "tools"}
    assert [name for name in MODULES if {*name.removesuffix(".py").split("/")} & vague] == []


def test_no_module_is_longer_than_500_lines():
    long = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: count for name, count in long.items() if count > 500} == {}


def test_no_function_is_longer_than_40_lines():
    found = {(name, f.name): code_lines(name, f) for name in MODULES for f in functions(name)}
    assert {place: count for place, count in found.items() if count > 40 and place not in LONG_FUNCTIONS} == {}
    assert all(found[place] > 40 for place in LONG_FUNCTIONS)


def test_no_function_takes_more_than_8_parameters():
    found = {(name, f.name): num_parameters(f) for name in MODULES for f in functions(name)}
    assert {place: count for place, count in found.items() if count > 8 and place not in MANY_PARAMETERS} == {}
    assert all(found[place] > 8 for place in MANY_PARAMETERS)


def test_no_class_has_more_than_12_public_methods():
    wrong = {}
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                methods = [item for item in node.body if isinstance(item, ast.FunctionDef)]
                if len([m for m in methods if not m.name.startswith("_")]) > 12:
                    wrong[name, node.name] = len(methods)
    assert wrong == {}


def test_code_asserts_nothing_and_swallows_nothing():
    wrong = []
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Assert):
                wrong.append(f"{name}:{node.lineno} assert")
            if isinstance(node, ast.ExceptHandler):
                kind = node.type
                is_broad = kind is None or (isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException"))
                is_empty = all(isinstance(item, ast.Pass) for item in node.body)
                # Catching everything is right only to clean up and raise again.
                raises = any(isinstance(item, ast.Raise) for item in ast.walk(node))
                if (is_broad and not raises) or is_empty:
                    wrong.append(f"{name}:{node.lineno} except")
    assert wrong == []


def _named_things() -> Iterator[tuple[str, str]]:
    """File and dotted name of everything of this package that a docstring, a comment or a document names."""
    repository = ROOT.parent.parent
    texts = [*MODULES.values(), *repository.glob("*.md"), *repository.glob("docs/*.md"), *repository.glob("*/*.py")]
    for path in texts:
        for name in re.findall(r"`+(medgraft(?:\.\w+)+)`+", path.read_text(encoding="utf-8")):
            yield path.name, name


def _exists(name: str) -> bool:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            here: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            # Fields of values without a default are no attributes of their class.
            fields = getattr(here, "__dataclass_fields__", {}) | getattr(here, "model_fields", {})
            if part in fields:
                return True
            if not hasattr(here, part):
                return False
            here = getattr(here, part)
        return True
    return False


def test_what_texts_name_exists():
    named = set(_named_things())
    assert len(named) > 50
    assert sorted(f"{file}: {name}" for file, name in named if not _exists(name)) == []
