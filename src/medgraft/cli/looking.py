"""Commands that look and train nothing: where networks can be cut, and what this machine has."""

import json
from typing import Annotated, Any, cast

import typer

from medgraft.cli.options import RUNNING, STRATEGY, BackboneArgs, Lift, Size, backbone_args, option, size_of
from medgraft.cli.program import app, console

__all__ = ["cuts", "doctor"]


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
    from medgraft.cli.terminal import print_table
    from medgraft.transfer.source import random_source
    from medgraft.types import to_json

    source = random_source(backbone, backbone_args(backbone_arg), size_of(size), cast("Any", lift or "none"))
    costs = {}
    if decoder:
        from medgraft.transfer.decoders import segmenter_costs

        costs = segmenter_costs(source, decoder)
    if as_json:
        told = [{**to_json(cut), **_with_decoder(costs.get(cut.index))} for cut in source.cuts]
        typer.echo(json.dumps(told, indent=1))
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


def _with_decoder(cost: tuple[int, int] | None) -> dict[str, Any]:
    return {} if cost is None else {"with_decoder": {"num_params": cost[0], "macs": cost[1]}}


def _decoder_columns(cost: tuple[int, int] | None) -> tuple[str, str]:
    return ("too shallow", "") if cost is None else (f"{cost[0] / 1e6:.3f} M", f"{cost[1] / 1e9:.3f} G")


@app.command()
def doctor() -> None:
    """Versions, build mismatch, devices, codecs, offline weights. Exit code 0 when all is well, else 1."""
    from medgraft.cli.terminal import print_table
    from medgraft.run.doctor import doctor as run_doctor

    diagnosis = run_doctor()
    rows = [[found.status, found.name, found.message] for found in diagnosis.checks]
    print_table(console, [("", False), ("check", False), ("found", False)], rows)
    raise typer.Exit(0 if diagnosis.is_healthy else 1)
