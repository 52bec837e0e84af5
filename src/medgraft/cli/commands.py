"""Commands about data: each parses, calls one library function, prints."""

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
    Decoder,
    DemoTask,
    Device,
    Executor,
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
    asked,
    cohort_options,
    data_sets,
    fraction,
    network_options,
    option,
)
from medgraft.cli.program import app, console, typed
from medgraft.errors import ConfigError

__all__ = ["advise", "analyze", "check", "compare", "demo", "evaluate", "fit", "predict"]


@app.command()
def fit(
    data: Annotated[Path, typer.Argument(help="Folder, CSV/TSV/Parquet table, or MedMNIST .npz.")],
    *,
    leaks: Leaks = None,
    cache: Cache = None,
    path_column: PathColumn = None,
    patient_column: PatientColumn = None,
    patient_regex: PatientRegex = None,
    task: TaskOption = None,
    positive: Positive = None,
    label_column: LabelColumn = None,
    labels: Labels = None,
    key: Key = None,
    uncertain: Uncertain = None,
    blank: Blank = None,
    grades: Grades = None,
    unit: Annotated[str | None, option(LABELS, "image, series, study or patient: judged as one.")] = None,
    observer: Observer = None,
    backbone: Annotated[
        str | None,
        option(
            NETWORK, "timm name, torchvision/NAME, shapes_resnet18 (packaged), MODULE:CALLABLE or FILE.py:CALLABLE."
        ),
    ] = None,
    backbone_arg: BackboneArgs = [],  # noqa: B006 - typer copies it
    weights: Weights = None,
    size: Size = None,
    lift: Lift = None,
    strategy: Annotated[
        str | None,
        option(
            STRATEGY, "ttl, ftl, frozen, hybrid, lwft, tf, gradual, lp-ft, discriminative, wtst, l2sp, lora or scratch."
        ),
    ] = None,
    head: Annotated[
        str | None,
        option(STRATEGY, "pooled or flattened; for hybrid svm, random-forest, logistic, knn or gradient-boosting."),
    ] = None,
    decoder: Decoder = None,
    cut: Annotated[str | None, option(STRATEGY, "auto, an index from 1, or a name such as layer3.2.")] = None,
    rule: Annotated[str | None, option(STRATEGY, "compact (smallest not worse) or best.")] = None,
    search: Annotated[
        str | None,
        option(STRATEGY, "auto, guided, two-stage, svcca, exhaustive, or for lwft incremental."),
    ] = None,
    preset: Annotated[str, option(TRAINING, "fast, balanced, thorough or paper.")] = "balanced",
    epochs: Annotated[int | None, option(TRAINING, "Passes over the training set per model.")] = None,
    seeds: Annotated[int | None, option(TRAINING, "Trainings of the chosen model and the baseline.")] = None,
    imbalance: Annotated[str | None, option(TRAINING, "none, weights, sampler, focal or logit-adjust.")] = None,
    margin: Annotated[
        float | None,
        option(EVALUATION, "Non-inferiority margin (AUROC, Dice), fixed beforehand."),
    ] = None,
    operating_point: Annotated[str | None, option(EVALUATION, "youden or sensitivity=0.95, from validation.")] = None,
    folds: Annotated[
        int | None,
        option(EVALUATION, "Grouped nested cross-validation with this many folds."),
    ] = None,
    thumbnails: Annotated[bool, option(EVALUATION, "Pictures in the report.")] = True,
    out: Annotated[Path, option(RUNNING, "Run folder; the same command continues it.")],
    seed: Annotated[int | None, option(RUNNING, "Fixes the split and everything else.")] = None,
    deterministic: Annotated[
        bool,
        option(RUNNING, "Reproducible to the bit; measures nothing.", "--deterministic"),
    ] = False,
    executor: Executor = None,
    device: Device = None,
    offline: Offline = False,
    budget: Annotated[str | None, option(RUNNING, "Time for everything, e.g. 30m.")] = None,
    sets: Sets = [],  # noqa: B006 - typer copies it
) -> None:
    """Audit, split, search the cut, train, test once, report."""
    from medgraft.config import make_config, parse_minutes

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
        "executor": executor,
        "device": device,
        "offline": offline,
        "budget_minutes": parse_minutes(budget) if budget is not None else None,
    }
    config = make_config(str(data), preset=preset, options=options, sets=sets)

    # What is wrong with the call is said before anything large is loaded.
    from medgraft.cli.output import print_results
    from medgraft.cli.terminal import listening
    from medgraft.run.fit import fit as run_fit

    with listening(console) as listener:
        results = run_fit(config, out, listener=listener, command=typed())
    print_results(console, results, out)


@app.command()
def check(
    data: Annotated[Path, typer.Argument(help="As for fit.")],
    *,
    path_column: PathColumn = None,
    patient_column: PatientColumn = None,
    patient_regex: PatientRegex = None,
    label_column: LabelColumn = None,
    labels: Labels = None,
    key: Key = None,
    uncertain: Uncertain = None,
    blank: Blank = None,
    grades: Grades = None,
    task: TaskOption = None,
    observer: Observer = None,
    positive: Positive = None,
    sets: Sets = [],  # noqa: B006 - typer copies it
    seed: Annotated[int, option(RUNNING, "Draws the split that is shown.")] = 0,
) -> None:
    """Audit a cohort. Exit code 0: clean, 1: leaks, broken files or doubtful masks, 2: unusable."""
    from medgraft.config import make_config

    config = make_config(
        str(data), options={"data": cohort_options({**locals(), "leaks": "stop"})}, sets=data_sets(sets, "check")
    ).data

    from medgraft.cli.output import print_audit
    from medgraft.cli.terminal import listening
    from medgraft.run.check import check as run_check

    with listening(console) as listener:
        audit, _ = run_check(config, seed=seed, listener=listener)
    raise typer.Exit(0 if print_audit(audit) else 1)


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="Finished run or its model folder.")],
    inputs: Annotated[list[Path], typer.Argument(help="Image files and folders.")],
    *,
    unit: JudgedBy = None,
    out: Annotated[
        Path | None,
        option(RUNNING, "CSV (predictions.csv); of a segmentation a folder (predicted_masks).", "-o", "--out"),
    ] = None,
    kind: FormatOfMasks = "auto",
    device: Device = "auto",
) -> None:
    """Probabilities, or masks, for files; a broken file costs only its own row."""
    from medgraft.cli.terminal import listening
    from medgraft.data.cohort.cases import find_cases
    from medgraft.deploy import MASK_LIST, load_artefact, predict_files, segment_files
    from medgraft.files import refuse_place, write_table
    from medgraft.setup.folder import refuse_run_folder
    from medgraft.train.engine import pick_device

    model = load_artefact(run)
    cases = find_cases(inputs, model.artefact.preprocessing.dims)
    is_masks = bool(model.artefact.patch)
    if (is_masks and unit is not None) or (not is_masks and kind != "auto"):
        raise ConfigError(f"{'--unit is for labels' if is_masks else '--format is for masks'}. Leave it out.")
    # Not "masks": there people keep the truth.
    target = out or Path("predicted_masks" if is_masks else "predictions.csv")
    refuse_run_folder(target if is_masks else target.parent)
    refuse_place(target, is_folder=is_masks)
    with listening(console) as listener:

        def progress(done: int, total: int) -> None:
            listener.step("predicting", done, total)

        used = pick_device(device or "auto")
        if is_masks:
            table = segment_files(model, cases, target, kind=kind, device=used, progress=progress)
            target = target / MASK_LIST
        else:
            table = predict_files(model, cases, unit=unit, device=used, progress=progress)
            write_table(table, target)
    bad = int((table["status"] != "ok").sum())
    typer.echo(f"{len(table)} cases, {bad} with a remark in the column status: {target}")


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Finished run or its model folder.")],
    data: Annotated[Path, typer.Argument(help="External cohort, as for fit.")],
    *,
    cache: Cache = None,
    path_column: PathColumn = None,
    patient_column: PatientColumn = None,
    patient_regex: PatientRegex = None,
    label_column: LabelColumn = None,
    labels: Labels = None,
    key: Key = None,
    uncertain: Uncertain = None,
    blank: Blank = None,
    observer: Observer = None,
    unit: JudgedBy = None,
    out: Annotated[
        Path | None,
        option(RUNNING, "Folder for evaluation.json and predictions.csv.", "-o", "--out"),
    ] = None,
    device: Device = "auto",
    sets: Sets = [],  # noqa: B006 - typer copies it
) -> None:
    """A finished model on an external cohort, with intervals, per site when known."""
    from medgraft.config import make_config

    options = {"data": cohort_options({**locals(), "positive": None, "leaks": "stop"})}
    config = make_config(str(data), options=options, sets=data_sets(sets, "evaluate")).data

    from medgraft.cli.output import print_external
    from medgraft.cli.terminal import listening
    from medgraft.run.evaluate import evaluate as run_evaluate

    with listening(console) as listener:
        result = run_evaluate(run, config, out=out, unit=unit, device=device or "auto", listener=listener)
    print_external(console, result)


@app.command()
def demo(
    *,
    task: DemoTask = "classification",
    out: Annotated[Path, option(RUNNING, "Folder for phantom and run.")] = Path("medgraft-demo"),
    seed: Annotated[int, option(RUNNING, "Draws everything.")] = 0,
    volumes: Annotated[bool, option(RUNNING, "Chests of 32 × 32 × 32 voxels instead of films.", "--volumes")] = False,
) -> None:
    """The main job on the built-in phantom with the packaged network, offline."""
    from medgraft.cli.output import print_results
    from medgraft.cli.terminal import listening
    from medgraft.run.demo import demo as run_demo
    from medgraft.run.demo import demo_run

    with listening(console) as listener:
        results = run_demo(out, seed=seed, volumes=volumes, task=task, listener=listener)
    print_results(console, results, demo_run(out, volumes=volumes, task=task))
    typer.echo(f"A demonstration on drawn {'chests' if volumes else 'films'}, not evidence.")


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
