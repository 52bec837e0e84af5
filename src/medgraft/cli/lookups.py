"""Commands that look and train nothing: where networks can be cut, what this machine has, and what it keeps."""

import datetime
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from medgraft.cli.options import DATA, RUNNING, STRATEGY, BackboneArgs, Lift, Size, backbone_args, option, size_of
from medgraft.cli.program import app, console

if TYPE_CHECKING:
    from medgraft.transfer.decoders import SegmenterCost

__all__ = ["cache", "cuts", "doctor"]


@app.command()
def cuts(
    backbone: Annotated[str, typer.Argument(help="As for fit.")],
    *,
    backbone_arg: BackboneArgs = [],  # noqa: B006 - typer copies it
    size: Size = None,
    lift: Lift = None,
    decoder: Annotated[
        str | None,
        option(STRATEGY, "Cost with a decoder for masks, too: unet, unet++, fpn or upernet."),
    ] = None,
    as_json: Annotated[bool, option(RUNNING, "Print a list of objects.", "--json")] = False,
) -> None:
    """The table of cuts of a network: where one tensor carries everything."""
    from medgraft.as_json import to_json
    from medgraft.cli.terminal import print_table
    from medgraft.transfer.source import random_source

    source = random_source(backbone, backbone_args(backbone_arg), size_of(size), cast("Any", lift or "none"))
    costs = {}
    if decoder:
        from medgraft.transfer.decoders import segmenter_costs

        costs = segmenter_costs(source, decoder)
    if as_json:
        entries = [
            {**to_json(cut), **({"with_decoder": to_json(costs[cut.index])} if cut.index in costs else {})}
            for cut in source.cuts
        ]
        typer.echo(json.dumps(entries, indent=1))
        return
    names = ["cut", "name", "stage", "channels", "stride", "params", "MACs"]
    columns = [(head, head != "name") for head in [*names, *((f"with {decoder}: params", "MACs") if decoder else ())]]
    rows = [
        [
            str(cut.index),
            cut.name,
            str(cut.stage),
            str(cut.channels),
            str(cut.stride),
            f"{cut.num_params / 1e6:.3f} M",
            f"{cut.macs / 1e9:.3f} G",
            *(_decoder_columns(costs.get(cut.index)) if decoder else ()),
        ]
        for cut in source.cuts
    ]
    print_table(console, columns, rows)


def _decoder_columns(cost: "SegmenterCost | None") -> tuple[str, str]:
    return ("too shallow", "") if cost is None else (f"{cost.num_params / 1e6:.3f} M", f"{cost.macs / 1e9:.3f} G")


@app.command()
def doctor() -> None:
    """Versions, build mismatch, devices, codecs, offline weights. Exit code 0 when all is well, else 1."""
    from medgraft.cli.terminal import print_table
    from medgraft.run.doctor import doctor as run_doctor

    diagnosis = run_doctor()
    rows = [[check.status, check.name, check.message] for check in diagnosis.checks]
    print_table(console, [("", False), ("check", False), ("found", False)], rows)
    raise typer.Exit(0 if diagnosis.is_healthy else 1)


@app.command()
def cache(
    folder: Annotated[Path | None, option(DATA, "As --cache of fit; default below MEDGRAFT_HOME.", "--cache")] = None,
    *,
    clear: Annotated[bool, option(RUNNING, "Remove decoded images that no process uses.", "--clear")] = False,
    unused_days: Annotated[int, option(RUNNING, "With --clear: only those not used for as long.", least=0)] = 0,
    as_json: Annotated[bool, option(RUNNING, "Print a list of objects.", "--json")] = False,
) -> None:
    """Decoded images that are kept for the next run, the most recently used first; --clear removes them."""
    from medgraft.as_json import to_json
    from medgraft.cli.terminal import print_table
    from medgraft.data.decoded.store import drop, store_folder, stored_cohorts

    store = folder or store_folder()
    now = datetime.datetime.now(datetime.timezone.utc)
    if clear:
        old = [cohort for cohort in stored_cohorts(store) if (now - cohort.used).days >= unused_days]
        dropped = [cohort for cohort in old if drop(cohort)]
        in_use = f", {len(old) - len(dropped)} are in use" if len(old) > len(dropped) else ""
        freed = sum(cohort.num_bytes for cohort in dropped) / 1e9
        console.print(f"Removed {_counted(len(dropped))}, {freed:.2f} GB{in_use}.")
        return
    cohorts = stored_cohorts(store)
    if as_json:
        typer.echo(json.dumps([{**to_json(cohort), "used": cohort.used.isoformat()} for cohort in cohorts], indent=1))
        return
    rows = [
        [
            cohort.root,
            str(cohort.num_images),
            "×".join(map(str, cohort.sides)),
            f"{cohort.num_bytes / 1e9:.2f} GB",
            f"{(now - cohort.used).days} days ago" if (now - cohort.used).days else "today",
        ]
        for cohort in cohorts
    ]
    if rows:
        columns = [("images of", False), ("images", True), ("sides", True), ("size", True), ("last used", False)]
        print_table(console, columns, rows)
    total = sum(cohort.num_bytes for cohort in cohorts) / 1e9
    console.print(f"{_counted(len(cohorts))}, {total:.2f} GB, in {store}.{' --clear removes them.' if cohorts else ''}")


def _counted(number: int) -> str:
    return f"{number} decoded cohort{'' if number == 1 else 's'}"
