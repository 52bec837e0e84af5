"""Commands that compare and explain: each parses, calls one library function, prints."""

import json
from pathlib import Path
from typing import Annotated

import typer

from medgraft.cli.options import (
    EVALUATION,
    LABELS,
    NETWORK,
    RUNNING,
    STRATEGY,
    TRAINING,
    BackboneArgs,
    Blank,
    Cache,
    Device,
    Executor,
    Grades,
    Input,
    Key,
    LabelColumn,
    Labels,
    Leaks,
    Lift,
    Offline,
    PathColumn,
    PatientColumn,
    PatientRegex,
    Positive,
    Sets,
    Size,
    Uncertain,
    Weights,
    asked,
    cohort_options,
    fraction,
    network_options,
    option,
)
from medgraft.cli.program import app, console, typed
from medgraft.errors import ConfigError

__all__ = ["advise", "analyze", "compare"]


@app.command()
def compare(
    data: Annotated[Path, typer.Argument(help="As for fit.")],
    *,
    leaks: Leaks = None,
    cache: Cache = None,
    path_column: PathColumn = None,
    patient_column: PatientColumn = None,
    patient_regex: PatientRegex = None,
    positive: Positive = None,
    label_column: LabelColumn = None,
    labels: Labels = None,
    key: Key = None,
    uncertain: Annotated[
        str | None,
        option(LABELS, "As for fit; several, separated by semicolons, are compared with each other."),
    ] = None,
    blank: Blank = None,
    grades: Grades = None,
    backbone: Annotated[str | None, option(NETWORK, "As for fit.")] = None,
    backbone_arg: BackboneArgs = [],  # noqa: B006 - typer copies it
    weights: Weights = None,
    size: Size = None,
    lift: Lift = None,
    input: Input = None,  # noqa: A002 - as it is typed
    strategies: Annotated[str, option(STRATEGY, "all, or names separated by commas; ftl is added.")] = "all",
    trials: Annotated[int, option(STRATEGY, "Trainings per strategy over depth and learning rate.")] = 4,
    head: Annotated[str | None, option(STRATEGY, "Head of hybrid: svm, random-forest, logistic, knn …")] = None,
    fractions: Annotated[str, option(TRAINING, "Shares of the training groups, separated by commas.")] = "1",
    seeds: Annotated[int, option(TRAINING, "Trainings of each strategy's choice.")] = 3,
    preset: Annotated[str, option(TRAINING, "fast, balanced, thorough or paper.")] = "balanced",
    epochs: Annotated[int | None, option(TRAINING, "Passes over the training set per model.")] = None,
    margin: Annotated[
        float | None,
        option(EVALUATION, "Non-inferiority margin (AUROC, Dice), fixed beforehand."),
    ] = None,
    out: Annotated[Path, option(RUNNING, "Folder of the comparison; the same command continues it.")],
    seed: Annotated[int | None, option(RUNNING, "Fixes the split and everything else.")] = None,
    executor: Executor = None,
    device: Device = None,
    offline: Offline = False,
    sets: Sets = [],  # noqa: B006 - typer copies it
) -> None:
    """All transfer strategies under one protocol, tested together once."""
    from medgraft.config import make_config

    policies = [part.strip() for part in (uncertain or "").split(";") if part.strip()]
    options = {
        "data": cohort_options({**locals(), "uncertain": policies[0] if policies else None}),
        "backbone": network_options(locals()),
        "transfer": {"head": head},
        "train": {"epochs": epochs},
        "evaluate": {"margin": margin},
        "compare": {
            "strategies": [name.strip() for name in strategies.split(",") if name.strip()],
            "fractions": [fraction(part) for part in fractions.split(",")],
            "uncertain": policies if len(policies) > 1 else [],
            "trials": trials,
        },
        "seeds": seeds,
        "seed": seed,
        "executor": executor,
        "device": device,
        "offline": offline or None,
    }
    config = make_config(str(data), preset=preset, options=options, sets=sets)

    from medgraft.cli.output import print_comparison
    from medgraft.cli.terminal import listening
    from medgraft.run.compare import compare as run_compare

    with listening(console) as listener:
        results = run_compare(config, out, listener=listener, command=typed())
    print_comparison(console, results, out)


@app.command()
def analyze(
    inputs: Annotated[
        list[Path],
        typer.Argument(help="Folders of finished fits, data and weights in place; or one cohort as for fit."),
    ],
    *,
    leaks: Leaks = None,
    cache: Cache = None,
    path_column: PathColumn = None,
    patient_column: PatientColumn = None,
    patient_regex: PatientRegex = None,
    positive: Positive = None,
    label_column: LabelColumn = None,
    labels: Labels = None,
    key: Key = None,
    uncertain: Uncertain = None,
    blank: Blank = None,
    grades: Grades = None,
    backbone: Annotated[str | None, option(NETWORK, "For a cohort: as for fit.")] = None,
    backbone_arg: BackboneArgs = [],  # noqa: B006 - typer copies it
    weights: Weights = None,
    size: Size = None,
    lift: Lift = None,
    input: Input = None,  # noqa: A002 - as it is typed
    images: Annotated[int, option(EVALUATION, "Training images to compare on, at most.", least=20)] = 1000,
    source: Annotated[
        Path | None,
        option(EVALUATION, "Images of the pretraining, or a statistics.npz of them: how far away are ours?"),
    ] = None,
    gain: Annotated[
        bool,
        option(EVALUATION, "Train with weights up to every stage against random ones (WT-ST).", "--gain"),
    ] = False,
    against: Annotated[Path | None, option(EVALUATION, "A second run of the same network and images.")] = None,
    out: Annotated[Path | None, option(RUNNING, "For a cohort: folder of its analysis.")] = None,
    seed: Annotated[int | None, option(RUNNING, "For a cohort: fixes the split.")] = None,
    device: Device = None,
    offline: Offline = False,
    sets: Sets = [],  # noqa: B006 - typer copies it
) -> None:
    """What transfer changed at every cut and what its features are worth; adds figures to the run's report."""
    from medgraft.config import make_config

    if out is not None and (len(inputs) > 1 or gain or against is not None):
        raise ConfigError("--out is for one cohort without --gain and --against, which need finished runs.")
    if sets and out is None:
        raise ConfigError("--set is for a cohort (--out); a finished run keeps its settings. Leave it out.")
    cohort, network = cohort_options(locals()), network_options(locals())
    options = {"data": cohort, "backbone": network, "seed": seed, "device": device, "offline": offline}
    kept = {name: value for name, value in cohort.items() if name != "cache"}
    if out is None and (asked(kept) or asked(network) or seed is not None or offline):
        raise ConfigError("options about cohort and network are for a cohort (--out); a finished run keeps its own.")
    config = make_config(str(inputs[0]), options=options, sets=sets)

    from medgraft.cli.output import print_analysis
    from medgraft.cli.terminal import listening
    from medgraft.run.analyze import Question, analyze_cohort, analyze_runs

    with listening(console) as listener:
        if out is not None:
            results = [analyze_cohort(config, out, num_images=images, source=source, listener=listener)]
        else:
            question = Question(
                num_images=images,
                source=source,
                other=against,
                is_gain_wanted=gain,
                device=device or "auto",
                cache=str(cache) if cache is not None else None,
            )
            results = analyze_runs(inputs, question, listener=listener)
    pages = [out / "analysis.html"] if out is not None else [run / "report.html" for run in inputs]
    for result, page in zip(results, pages, strict=True):
        print_analysis(console, result, page)


@app.command()
def advise(
    data: Annotated[Path, typer.Argument(help="As for fit.")],
    *,
    leaks: Leaks = None,
    cache: Cache = None,
    path_column: PathColumn = None,
    patient_column: PatientColumn = None,
    patient_regex: PatientRegex = None,
    positive: Positive = None,
    label_column: LabelColumn = None,
    labels: Labels = None,
    key: Key = None,
    uncertain: Uncertain = None,
    blank: Blank = None,
    grades: Grades = None,
    backbone: Annotated[str | None, option(NETWORK, "As for fit.")] = None,
    backbone_arg: BackboneArgs = [],  # noqa: B006 - typer copies it
    weights: Weights = None,
    size: Size = None,
    lift: Lift = None,
    input: Input = None,  # noqa: A002 - as it is typed
    seed: Annotated[int | None, option(RUNNING, "Fixes the split.")] = None,
    executor: Executor = None,
    device: Device = None,
    offline: Offline = False,
    sets: Sets = [],  # noqa: B006 - typer copies it
    as_json: Annotated[bool, option(RUNNING, "Print JSON.", "--json")] = False,
) -> None:
    """Which strategy and depth to start with, and why, from minutes of measurement; the test set stays shut."""
    from medgraft.config import make_config

    options = {
        "data": cohort_options(locals()),
        "backbone": network_options(locals()),
        "seed": seed,
        "executor": executor,
        "device": device,
        "offline": offline or None,
    }
    config = make_config(str(data), options=options, sets=sets)

    from medgraft.as_json import to_json
    from medgraft.cli.output import print_advice
    from medgraft.cli.terminal import listening
    from medgraft.run.advise import advise as run_advise

    with listening(console) as listener:
        advice = run_advise(config, listener=listener)
    if as_json:
        typer.echo(json.dumps(to_json(advice), indent=1, ensure_ascii=False))
        return
    print_advice(advice)
