"""Commands about data: each parses, calls one library function, prints."""

import json
from pathlib import Path
from typing import Annotated

import typer

from medgraft.cli.options import (
    BackboneArgs,
    Blank,
    Decoder,
    DemoTask,
    Device,
    FormatOfMasks,
    Grades,
    JudgedBy,
    Key,
    LabelColumn,
    Labels,
    Leaks,
    Lift,
    Observer,
    Offline,
    PathColumn,
    PatientColumn,
    PatientRegex,
    Positive,
    Sets,
    Size,
    TaskOption,
    Uncertain,
    Weights,
    cohort_options,
    fraction,
    network_options,
)
from medgraft.cli.program import app, console, typed
from medgraft.errors import ConfigError

__all__ = ["advise", "analyze", "check", "compare", "demo", "evaluate", "fit", "predict"]


@app.command()
def fit(
    data: Annotated[Path, typer.Argument(help="Folder, CSV/TSV/Parquet table, or MedMNIST .npz.")],
    out: Annotated[Path, typer.Option(help="Run folder; the same command continues it.")],
    task: TaskOption = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="timm name, shapes_resnet18 (packaged), MODULE:CALLABLE or FILE.py:CALLABLE."),
    ] = None,
    backbone_arg: BackboneArgs = [],  # noqa: B006 - typer copies it
    weights: Weights = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            help="ttl, ftl, frozen, hybrid, lwft, tf, gradual, lp-ft, discriminative, wtst, l2sp, lora or scratch."
        ),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(help="pooled or flattened; for hybrid svm, random-forest, logistic, knn or gradient-boosting."),
    ] = None,
    decoder: Decoder = None,
    cut: Annotated[str | None, typer.Option(help="auto, an index from 1, or a name such as layer3.2.")] = None,
    rule: Annotated[str | None, typer.Option(help="compact (smallest not worse) or best.")] = None,
    search: Annotated[
        str | None, typer.Option(help="auto, guided, two-stage, svcca, exhaustive, or for lwft incremental.")
    ] = None,
    size: Size = None,
    lift: Lift = None,
    preset: Annotated[str, typer.Option(help="fast, balanced, thorough or paper.")] = "balanced",
    epochs: Annotated[int | None, typer.Option(help="Passes over the training set per model.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Trainings of the chosen model and the baseline.")] = None,
    seed: Annotated[int | None, typer.Option(help="Fixes the split and everything else.")] = None,
    leaks: Leaks = None,
    imbalance: Annotated[str | None, typer.Option(help="none, weights, sampler, focal or logit-adjust.")] = None,
    positive: Positive = None,
    margin: Annotated[
        float | None, typer.Option(help="Non-inferiority margin (AUROC, Dice), fixed beforehand.")
    ] = None,
    operating_point: Annotated[str | None, typer.Option(help="youden or sensitivity=0.95, from validation.")] = None,
    path_column: PathColumn = None,
    label_column: LabelColumn = None,
    patient_column: PatientColumn = None,
    patient_regex: PatientRegex = None,
    labels: Labels = None,
    key: Key = None,
    uncertain: Uncertain = None,
    blank: Blank = None,
    grades: Grades = None,
    unit: Annotated[str | None, typer.Option(help="image, series, study or patient: judged as one.")] = None,
    observer: Observer = None,
    folds: Annotated[int | None, typer.Option(help="Grouped nested cross-validation with this many folds.")] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Reproducible to the bit; measures nothing.")
    ] = False,
    device: Device = None,
    offline: Offline = False,
    budget: Annotated[str | None, typer.Option(help="Time for everything, e.g. 30m.")] = None,
    thumbnails: Annotated[bool, typer.Option(help="Pictures in the report.")] = True,
    sets: Sets = [],  # noqa: B006 - typer copies it
) -> None:
    """Audit, split, search the cut, train, test once, report."""
    from medgraft.config import make_config, parse_minutes
    from medgraft.run.console import listening, print_results
    from medgraft.run.fit import fit as run_fit

    options = {
        "data": {**cohort_options(locals()), "folds": folds, "unit": unit},
        "backbone": network_options(locals()),
        "transfer": {"strategy": strategy, "head": head, "decoder": decoder, "cut": cut, "rule": rule},
        "search": {"method": search},
        "train": {"epochs": epochs, "imbalance": imbalance},
        "evaluate": {"margin": margin, "operating_point": operating_point, "thumbnails": thumbnails},
        "seed": seed,
        "seeds": seeds,
        "deterministic": deterministic,
        "device": device,
        "offline": offline,
        "budget_minutes": parse_minutes(budget) if budget is not None else None,
    }
    config = make_config(str(data), preset=preset, options=options, sets=sets)
    with listening(console) as listener:
        results = run_fit(config, out, listener=listener, command=typed())
    print_results(console, results, out)


@app.command()
def check(
    data: Annotated[Path, typer.Argument(help="As for fit.")],
    path_column: PathColumn = None,
    label_column: LabelColumn = None,
    patient_column: PatientColumn = None,
    patient_regex: PatientRegex = None,
    labels: Labels = None,
    key: Key = None,
    uncertain: Uncertain = None,
    blank: Blank = None,
    grades: Grades = None,
    task: TaskOption = None,
    observer: Observer = None,
    sets: Sets = [],  # noqa: B006 - typer copies it
    positive: Positive = None,
    seed: Annotated[int, typer.Option(help="Of the split that is shown.")] = 0,
) -> None:
    """Audit a cohort. Exit code 0: clean, 1: leaks, broken files or doubtful masks, 2: unusable."""
    from medgraft.config import make_config
    from medgraft.run.check import check as run_check
    from medgraft.run.console import listening

    config = make_config(str(data), options={"data": cohort_options({**locals(), "leaks": "stop"})}, sets=sets).data
    with listening(console) as listener:
        audit, _ = run_check(config, seed=seed, listener=listener)
    is_whole = not audit.has_leaks and not audit.num_broken
    doubtful = [found for found in audit.findings if found.kind.startswith("mask-") and found.severity == "warn"]
    for found in doubtful:
        typer.echo(f"{found.kind}: {', '.join(found.paths)}{' …' if found.count > len(found.paths) else ''}")
    if is_whole and not doubtful:
        typer.echo("clean: no leaks, no broken files.")
    else:
        typer.echo(f"found: {'masks to look at' if is_whole else 'leaks or broken files'}, see above.")
    raise typer.Exit(0 if is_whole and not doubtful else 1)


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="Finished run or its model folder.")],
    inputs: Annotated[list[Path], typer.Argument(help="Image files and folders.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="CSV (predictions.csv); of a segmentation a folder (predicted_masks)."),
    ] = None,
    unit: JudgedBy = None,
    kind: FormatOfMasks = "auto",
    device: Device = "auto",
) -> None:
    """Probabilities, or masks, for files; a broken file costs only its own row."""
    from medgraft.deploy import MASK_LIST, find_cases, load_artefact, predict_files, segment_files
    from medgraft.files import write_table
    from medgraft.run.console import listening
    from medgraft.train.engine import pick_device

    model = load_artefact(run)
    cases = find_cases(inputs, model.artefact.preprocessing.dims)
    is_masks = bool(model.artefact.patch)
    if (is_masks and unit is not None) or (not is_masks and kind != "auto"):
        raise ConfigError(f"{'--unit is for labels' if is_masks else '--format is for masks'}. Leave it out.")
    # Not "masks": there people keep the truth.
    place = out or Path("predicted_masks" if is_masks else "predictions.csv")
    with listening(console) as listener:

        def progress(done: int, total: int) -> None:
            listener.step("predicting", done, total)

        used = pick_device(device or "auto")
        if is_masks:
            table = segment_files(model, cases, place, kind=kind, device=used, progress=progress)
            place = place / MASK_LIST
        else:
            table = predict_files(model, cases, unit=unit, device=used, progress=progress)
            write_table(table, place)
    bad = int((table["status"] != "ok").sum())
    typer.echo(f"{len(table)} cases, {bad} with a remark in the column status: {place}")


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Finished run or its model folder.")],
    data: Annotated[Path, typer.Argument(help="External cohort, as for fit.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder for evaluation.json and predictions.csv.")
    ] = None,
    path_column: PathColumn = None,
    label_column: LabelColumn = None,
    patient_column: PatientColumn = None,
    patient_regex: PatientRegex = None,
    labels: Labels = None,
    key: Key = None,
    uncertain: Uncertain = None,
    blank: Blank = None,
    observer: Observer = None,
    unit: JudgedBy = None,
    device: Device = "auto",
    sets: Sets = [],  # noqa: B006 - typer copies it
) -> None:
    """A finished model on an external cohort, with intervals, per site when known."""
    from medgraft.config import make_config
    from medgraft.metrics.scores import SCORE_NAMES
    from medgraft.run.console import listening, observer_lines, print_metrics, value_with_interval
    from medgraft.run.evaluate import evaluate as run_evaluate

    options = {"data": cohort_options({**locals(), "positive": None, "leaks": "stop"})}
    config = make_config(str(data), options=options, sets=sets).data
    with listening(console) as listener:
        result = run_evaluate(run, config, out=out, unit=unit, device=device or "auto", listener=listener)
    surfaces = f", surfaces in {result['unit']}" if "unit" in result else ""
    title = f"{result['num_cases']} cases of {result['num_images']} images{surfaces}"
    print_metrics(console, result["metrics"], title)
    for line in observer_lines(result):
        typer.echo(line)
    for site, row in result.get("sites", {}).items():
        if "reason" in row:
            typer.echo(f"{site}: {row['reason']}")
        else:
            name = "dice" if "dice" in row else "auroc"
            typer.echo(f"{site}: {row['num_cases']} images, {SCORE_NAMES[name]} {value_with_interval(row[name])}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for phantom and run.")] = Path("medgraft-demo"),
    seed: Annotated[int, typer.Option(help="Of everything.")] = 0,
    volumes: Annotated[bool, typer.Option("--volumes", help="Chests of 32 × 32 × 32 voxels instead of films.")] = False,
    task: DemoTask = "classification",
) -> None:
    """The main job on the built-in phantom with the packaged network, offline."""
    from medgraft.run.console import listening, print_results
    from medgraft.run.demo import demo as run_demo
    from medgraft.run.demo import demo_run

    with listening(console) as listener:
        results = run_demo(out, seed=seed, volumes=volumes, task=task, listener=listener)
    print_results(console, results, demo_run(out, volumes=volumes, task=task))
    typer.echo(f"A demonstration on drawn {'chests' if volumes else 'films'}, not evidence.")


@app.command()
def compare(
    data: Annotated[Path, typer.Argument(help="As for fit.")],
    out: Annotated[Path, typer.Option(help="Folder of the comparison; the same command continues it.")],
    strategies: Annotated[str, typer.Option(help="all, or names separated by commas; ftl is added.")] = "all",
    fractions: Annotated[str, typer.Option(help="Shares of the training groups, separated by commas.")] = "1",
    trials: Annotated[int, typer.Option(help="Trainings per strategy over depth and learning rate.")] = 4,
    seeds: Annotated[int, typer.Option(help="Trainings of each strategy's choice.")] = 3,
    backbone: Annotated[str | None, typer.Option(help="As for fit.")] = None,
    backbone_arg: BackboneArgs = [],  # noqa: B006 - typer copies it
    weights: Weights = None,
    head: Annotated[str | None, typer.Option(help="Of hybrid: svm, random-forest, logistic, knn …")] = None,
    size: Size = None,
    lift: Lift = None,
    preset: Annotated[str, typer.Option(help="fast, balanced, thorough or paper.")] = "balanced",
    epochs: Annotated[int | None, typer.Option(help="Passes over the training set per model.")] = None,
    seed: Annotated[int | None, typer.Option(help="Fixes the split and everything else.")] = None,
    leaks: Leaks = None,
    positive: Positive = None,
    margin: Annotated[
        float | None, typer.Option(help="Non-inferiority margin (AUROC, Dice), fixed beforehand.")
    ] = None,
    path_column: PathColumn = None,
    label_column: LabelColumn = None,
    patient_column: PatientColumn = None,
    patient_regex: PatientRegex = None,
    labels: Labels = None,
    key: Key = None,
    uncertain: Annotated[
        str | None, typer.Option(help="As for fit; several, separated by semicolons, are compared with each other.")
    ] = None,
    blank: Blank = None,
    grades: Grades = None,
    device: Device = None,
    offline: Offline = False,
    sets: Sets = [],  # noqa: B006 - typer copies it
) -> None:
    """All transfer strategies under one protocol, tested together once."""
    from medgraft.config import make_config
    from medgraft.run.comparing import compare as run_compare
    from medgraft.run.console import listening, print_comparison

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
        "device": device,
        "offline": offline or None,
    }
    config = make_config(str(data), preset=preset, options=options, sets=sets)
    with listening(console) as listener:
        results = run_compare(config, out, listener=listener, command=typed())
    print_comparison(console, results, out)


@app.command()
def analyze(
    inputs: Annotated[
        list[Path],
        typer.Argument(help="Folders of finished fits, data and weights in place; or one cohort as for fit."),
    ],
    images: Annotated[int, typer.Option(help="Training images to compare on, at most.", min=20)] = 1000,
    source: Annotated[
        Path | None, typer.Option(help="Images of the pretraining, or a statistics.npz of them: how far away are ours?")
    ] = None,
    gain: Annotated[
        bool, typer.Option("--gain", help="Train with weights up to every stage against random ones (WT-ST).")
    ] = False,
    against: Annotated[Path | None, typer.Option(help="A second run of the same network and images.")] = None,
    out: Annotated[Path | None, typer.Option(help="For a cohort: folder of its analysis.")] = None,
    backbone: Annotated[str | None, typer.Option(help="For a cohort: as for fit.")] = None,
    backbone_arg: BackboneArgs = [],  # noqa: B006 - typer copies it
    weights: Weights = None,
    size: Size = None,
    lift: Lift = None,
    seed: Annotated[int | None, typer.Option(help="For a cohort: fixes the split.")] = None,
    leaks: Leaks = None,
    positive: Positive = None,
    path_column: PathColumn = None,
    label_column: LabelColumn = None,
    patient_column: PatientColumn = None,
    patient_regex: PatientRegex = None,
    labels: Labels = None,
    key: Key = None,
    uncertain: Uncertain = None,
    blank: Blank = None,
    grades: Grades = None,
    device: Device = None,
    offline: Offline = False,
    sets: Sets = [],  # noqa: B006 - typer copies it
) -> None:
    """What transfer changed at every cut and what its features are worth; adds figures to the run's report."""
    from medgraft.config import make_config
    from medgraft.run.analyzing import analyze_cohort, analyze_runs
    from medgraft.run.console import listening, print_analysis

    if out is not None and (len(inputs) > 1 or gain or against is not None):
        raise ConfigError("--out is for one cohort without --gain and --against, which need finished runs.")
    if sets and out is None:
        raise ConfigError("--set is for a cohort (--out); a finished run keeps its settings. Leave it out.")
    with listening(console) as listener:
        if out is not None:
            given = {
                "data": cohort_options(locals()),
                "backbone": network_options(locals()),
                "seed": seed,
                "device": device,
                "offline": offline,
            }
            config = make_config(str(inputs[0]), options=given, sets=sets)
            results = [analyze_cohort(config, out, num_images=images, source=source, listener=listener)]
        else:
            settings = {
                "num_images": images, "source": source, "other": against, "is_gain_wanted": gain,
                "device": device or "auto",
            }  # fmt: skip
            results = analyze_runs(inputs, **settings, listener=listener)
    pages = [out / "analysis.html"] if out is not None else [run / "report.html" for run in inputs]
    for found, page in zip(results, pages, strict=True):
        print_analysis(console, found, page)


@app.command()
def advise(
    data: Annotated[Path, typer.Argument(help="As for fit.")],
    backbone: Annotated[str | None, typer.Option(help="As for fit.")] = None,
    backbone_arg: BackboneArgs = [],  # noqa: B006 - typer copies it
    weights: Weights = None,
    size: Size = None,
    lift: Lift = None,
    seed: Annotated[int | None, typer.Option(help="Fixes the split.")] = None,
    leaks: Leaks = None,
    positive: Positive = None,
    path_column: PathColumn = None,
    label_column: LabelColumn = None,
    patient_column: PatientColumn = None,
    patient_regex: PatientRegex = None,
    labels: Labels = None,
    key: Key = None,
    uncertain: Uncertain = None,
    blank: Blank = None,
    grades: Grades = None,
    device: Device = None,
    offline: Offline = False,
    sets: Sets = [],  # noqa: B006 - typer copies it
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Which strategy and depth to start with, and why, from minutes of measurement; the test set stays shut."""
    from medgraft.config import make_config
    from medgraft.run.advising import advise as run_advise
    from medgraft.run.console import listening

    options = {
        "data": cohort_options(locals()),
        "backbone": network_options(locals()),
        "seed": seed,
        "device": device,
        "offline": offline or None,
    }
    config = make_config(str(data), options=options, sets=sets)
    with listening(console) as listener:
        advice = run_advise(config, listener=listener)
    if as_json:
        typer.echo(json.dumps(advice, indent=1, ensure_ascii=False))
        return
    for fact in advice["facts"]:
        typer.echo(f"  {fact}")
    for number, item in enumerate(advice["advice"], 1):
        depth = f" at cut {item['cut']['index']} {item['cut']['name']}" if item["cut"] else ""
        typer.echo(f"{number}. {item['strategy']}{depth}: {item['why']} [{item['source']}]")
