"""Commands about one model: each parses, calls one library function, prints."""

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
    Input,
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
    data_sets,
    network_options,
    option,
)
from medgraft.cli.program import app, console, typed
from medgraft.errors import ConfigError

__all__ = ["check", "demo", "evaluate", "fit", "predict"]


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
    input: Input = None,  # noqa: A002 - as it is typed
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
