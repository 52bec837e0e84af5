"""The main job on what the package carries: phantom, packaged network, no hub, no data of anybody."""

from pathlib import Path
from typing import Final, Literal

from medgraft.backbones.packaged import PACKAGED_NAME
from medgraft.config import make_config
from medgraft.listener import Listener
from medgraft.phantom.phantom import DEMO, DEMO_MASKS, DEMO_VOLUME_MASKS, DEMO_VOLUMES, write_phantom
from medgraft.result.run import RunResult
from medgraft.run.fit import fit

__all__ = ["demo", "demo_run"]

# By task, and whether volumes are drawn.
_SETTINGS: Final = {
    ("classification", False): DEMO,
    ("classification", True): DEMO_VOLUMES,
    ("segmentation", False): DEMO_MASKS,
    ("segmentation", True): DEMO_VOLUME_MASKS,
}


def demo(
    out: str | Path,
    *,
    seed: int = 0,
    weights: str = "packaged",
    volumes: bool = False,
    task: Literal["classification", "segmentation"] = "classification",
    listener: Listener | None = None,
) -> RunResult:
    """Draw the phantom into `out`, run the main job on it, and return its results.

    It is a demonstration of the tool, not evidence about any disease.

    Args:
        out: Folder for the phantom and the run.
        seed: Seeds phantom, split and training.
        weights: ``packaged``, or ``none`` to see what the pretraining is worth.
        volumes: Draw chests of 32 × 32 × 32 voxels instead of films; the packaged network is lifted to them.
        task: What is learned: which kind of lesion a film shows, or where it lies.
        listener: Told how things go.
    """
    folder = Path(out)
    listener = listener or Listener()
    data, settings = folder / f"phantom{_kind(volumes, task)}", _SETTINGS[task, volumes]
    if not (data / "cases.csv").exists():
        listener.say("Drawing the phantom …")
        write_phantom(data, settings, seed)
    # A decoder of volumes takes ten times as long as the head of a classifier, and with fewer epochs full fine-tuning
    # has not learned what it can: three cuts beside it, then, with the epochs of the others.
    is_long = volumes and task == "segmentation"
    config = make_config(
        str(data / "cases.csv"),
        preset="fast" if is_long else "balanced",
        options={
            **({"train": {"epochs": 30}, "search": {"max_trials": 3}} if is_long else {}),
            "data": {"task": task},
            "backbone": {"name": PACKAGED_NAME, "weights": weights},
            "seed": seed,
            "offline": True,
            # The first figures that people see are the same wherever as many threads compute: no speed that is measured
            # chooses the arithmetic. The others take minutes, in which it pays.
            "deterministic": task == "classification" and not volumes,
        },
    )
    command = f"medgraft demo --out {out} --seed {seed}" + (" --volumes" if volumes else "")
    command += " --task segmentation" if task == "segmentation" else ""
    return fit(
        config, demo_run(folder, volumes=volumes, task=task, weights=weights), listener=listener, command=command
    )


def demo_run(folder: Path, *, volumes: bool, task: str, weights: str = "packaged") -> Path:
    """Where below `folder` a demo keeps its run.

    Args:
        folder: Folder for the phantom and the run.
        volumes: Whether volumes are drawn.
        task: ``classification`` or ``segmentation``.
        weights: ``packaged`` or ``none``.
    """
    return folder / f"run{_kind(volumes, task)}{'' if weights == 'packaged' else '-scratch'}"


def _kind(volumes: bool, task: str) -> str:
    return ("-volumes" if volumes else "") + ("-masks" if task == "segmentation" else "")
