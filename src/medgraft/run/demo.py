"""The main job on what the package carries: phantom, packaged network, no hub, no data of anybody."""

from pathlib import Path
from typing import Any

from medgraft.backbones.packaged import PACKAGED_NAME
from medgraft.config import make_config
from medgraft.data.phantom import DEMO, DEMO_VOLUMES, write_phantom
from medgraft.run.fit import fit
from medgraft.run.folder import write_json
from medgraft.run.prepare import Listener
from medgraft.types import to_json

__all__ = ["demo"]


def demo(
    out: str | Path,
    *,
    seed: int = 0,
    weights: str = "packaged",
    volumes: bool = False,
    listener: Listener | None = None,
) -> dict[str, Any]:
    """Draw the phantom into `out`, run the main job on it, and return its results.

    It is a demonstration of the tool, not evidence about any disease.

    Args:
        out: Folder for the phantom and the run.
        seed: Of phantom, split and training.
        weights: ``packaged``, or ``none`` to see what the pretraining is worth.
        volumes: Draw chests of 32 × 32 × 32 voxels instead of films; the packaged network is lifted to them.
        listener: Told how things go.
    """
    folder = Path(out)
    told = listener or Listener()
    data = folder / ("phantom-volumes" if volumes else "phantom")
    settings = DEMO_VOLUMES if volumes else DEMO
    if not (data / "phantom.json").exists():
        told.say("Drawing the phantom …")
        write_phantom(data, settings, seed)
        write_json(data / "phantom.json", {"seed": seed, "settings": to_json(settings)})
    config = make_config(
        str(data / "cases.csv"),
        preset="balanced",
        options={"backbone": {"name": PACKAGED_NAME, "weights": weights}, "seed": seed, "offline": True},
    )
    name = "run" + ("-volumes" if volumes else "") + ("" if weights == "packaged" else "-scratch")
    command = f"medgraft demo --out {out} --seed {seed}" + (" --volumes" if volumes else "")
    return fit(config, folder / name, listener=told, command=command)
