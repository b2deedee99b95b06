"""The command line: `unlearnbench run | plan | tune | ls | sync | request …`.

Other commands are in files of their own, `cli_*.py`.

Imports are lazy: `--help` and `ls methods` load neither torch nor pandas.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .cli_check import check
from .cli_errors import BAD_INPUT, INTERRUPTED, SOME_FAILED, friendly_errors
from .cli_leaderboard import diff, leaderboard
from .cli_new import new_dataset, new_method
from .cli_report import make_command as make_report_command
from .errors import InputError, Problems, UnlearnBenchError

if TYPE_CHECKING:
    from .runner import RunOptions, RunResult
    from .sweep import SweepSpec

F = TypeVar("F", bound=Callable[..., Any])

_store = click.option(
    "--store",
    type=click.Path(path_type=Path),
    envvar="UNLEARNBENCH_STORE",
    default=".unlearnbench",
    show_default=True,
    show_envvar=True,
    help="Models and results, reused by every sweep.",
)
_tracking_uri = click.option(
    "--tracking-uri",
    envvar="MLFLOW_TRACKING_URI",
    show_envvar=True,
    help="MLflow server.  [default: a database in the store]",
)
_log_models = click.option(
    "--log-models", is_flag=True, help="Log the unlearned models to MLflow as well (safetensors)."
)


def _sweep_options(command: F) -> F:
    """What to run and where; shared by `run`, `plan` and `request`."""
    options = [
        click.argument("sweep", required=False, type=click.Path(path_type=Path)),
        click.option(
            "--method", multiple=True, help='Method, e.g. "scrub[lr=0.001,epochs=5]". Repeatable.'
        ),
        click.option("--seeds", help="A number n for seeds 0 to n-1, or a list: 0,4,7."),
        click.option(
            "--shadows",
            type=click.IntRange(min=0),
            help="Shadow models of the U-LIRA attack, an even number; 0 for no attack.",
        ),
        click.option(
            "--probe",
            multiple=True,
            help="Look inside the unlearned models: recovery, centres, cka, relearn, divergence "
            "or all. Repeatable.",
        ),
        click.option(
            "--hyperparameters",
            type=click.Path(path_type=Path),
            help="File of hyper-parameters that `unlearnbench tune` found.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return _task_options(command)


def _task_options(command: F) -> F:
    """Data, networks and the like; shared by all commands that unlearn."""
    options = [
        click.option("--dataset", multiple=True, help="Dataset, e.g. cifar10. Repeatable."),
        click.option("--model", multiple=True, help="Any timm architecture. Repeatable."),
        click.option(
            "--scenario",
            multiple=True,
            help='e.g. "class[classes=[3]]", "random[fraction=0.1]", "ids[file=f.json]".',
        ),
        click.option(
            "--recipe",
            multiple=True,
            help="auto (each method's own), plain, orthogonal. Repeatable.",
        ),
        click.option("--name", help="Name of the sweep: output folder and MLflow experiment."),
        click.option(
            "--epochs",
            type=click.IntRange(min=0),
            help="Training epochs of originals, retrained and shadow models; 0 takes the weights "
            "of `MODEL[weights=FILE]` as they are.",
        ),
        click.option(
            "--time-limit",
            type=click.FloatRange(min=0, min_open=True),
            help="Seconds that unlearning one model may take; retraining is exempt.",
        ),
        click.option(
            "--plugin",
            multiple=True,
            type=click.Path(path_type=Path),
            help="Python file with further methods or datasets. Repeatable.",
        ),
        click.option(
            "--data-root",
            type=click.Path(path_type=Path),
            envvar="UNLEARNBENCH_DATA_ROOT",
            default="data",
            show_default=True,
            show_envvar=True,
            help="Where datasets keep their files.",
        ),
        _store,
        click.option(
            "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps."
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _run_options(command: F) -> F:
    """Options that say where results go, and how many processes work."""
    options = [
        click.option(
            "--out",
            type=click.Path(path_type=Path),
            envvar="UNLEARNBENCH_OUT",
            show_envvar=True,
            help="Records and leaderboard.  [default: results/<sweep name>]",
        ),
        _tracking_uri,
        click.option(
            "--workers",
            type=click.IntRange(min=0),
            help="Processes at a time; 0 runs in this one.  [default: one a core]",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="unlearnbench")
def cli() -> None:
    """Compare machine-unlearning methods for image classifiers."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)


@cli.command()
@_sweep_options
@_run_options
@_log_models
def run(**options: Any) -> None:  # noqa: ANN401
    """Run a sweep; without SWEEP, the built-in quickstart.

    \b
    unlearnbench run
    unlearnbench run my_sweep.toml --workers 4
    unlearnbench run --dataset cifar10 --model resnet18 --method scrub --method svd
    """  # noqa: D301 - click wants the character itself
    with friendly_errors("interrupted; what is finished is kept, the same command continues."):
        from .runner import plan_sweep, run_sweep

        spec, where, problems = _read(options)
        if problems:
            plan_sweep(spec, where, problems)  # raises, with all else that is wrong
        with redirect_stdout(sys.stderr):  # plug-ins may print; standard output is the table's
            result = run_sweep(spec, where)
        _report(result, _sync_command(result, where))
        if any(
            result.summary[f"{what}_failed"]
            for what in ("cells", "attacks", "banks", "probes", "studies")
        ):
            sys.exit(SOME_FAILED)


@cli.command()
@_sweep_options
@_run_options
@_log_models
def plan(**options: Any) -> None:  # noqa: ANN401
    """Print the cells of a sweep and what would be trained, without running anything.

    Takes the same options as `run`.
    """
    with friendly_errors():
        from .planview import describe_plan
        from .runner import count_workers, plan_sweep
        from .store import Store
        from .tuning_target import find_targets

        spec, where, problems = _read(options)
        sweep, data, planned, device = plan_sweep(spec, where, problems, build_models=True)
        workers = count_workers(where.workers, device)
        targets = [] if spec.tune is None else find_targets(sweep, data, device, spec.tune)
        store = Store(where.store, create=False)
        click.echo(describe_plan(spec, planned, store, workers, targets))


@cli.command()
@click.argument("methods", nargs=-1, required=True)
@click.option(
    "--sweep",
    type=click.Path(path_type=Path),
    help="Sweep file whose data, training and so on to take.  [default: the quickstart]",
)
@_task_options
@click.option("--trials", type=click.IntRange(min=1), help="Trials of every method.  [default: 30]")
@click.option(
    "--development-models",
    type=click.IntRange(min=1),
    help="Originals, trained for tuning alone, on which a trial is run.  [default: 2]",
)
@click.option(
    "--objective",
    multiple=True,
    type=click.Choice(["retain", "forget", "seconds", "balance"]),
    help="What to make best; several give a front.  [default: retain, forget, seconds]",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1, max_open=True),
    help="Share of the original's accuracy on what is kept that may be lost.  [default: 0.02]",
)
@click.option(
    "--track",
    type=click.Choice(["validation", "oracle"]),
    help="oracle compares with retrained models, which nobody has who needs unlearning.  "
    "[default: validation]",
)
@click.option(
    "--search",
    multiple=True,
    metavar="NAME=VALUES",
    help='Where to search instead: "lr=[0.001,0.1]", "optimizer=[sgd,adamw]". Repeatable.',
)
@click.option("--sampler", type=click.Choice(["tpe", "nsgaii", "gp", "random"]), help="Optuna's.")
@click.option("--seed", type=click.IntRange(min=0), help="Draws the trials.  [default: 0]")
@click.option(
    "--storage",
    envvar="UNLEARNBENCH_STORAGE",
    show_envvar=True,
    help="Where studies are kept, for several processes or machines: a file NAME.log, sqlite:///…, "
    "postgresql://…, mysql://… or grpc://HOST:PORT.  [default: the store]",
)
@click.option("--study", help="Name of the study.  [default: made of what it is of]")
@_run_options
def tune(methods: tuple[str, ...], **options: Any) -> None:  # noqa: ANN401
    """Search hyper-parameters of METHODS, on originals and images that no sweep is judged by.

    \b
    unlearnbench tune scrub --trials 30
    unlearnbench tune svd "finetune[epochs=5]" --sweep my_sweep.toml --objective balance

    What is set in brackets is not searched. The result, `tuned.toml`, is for
    `unlearnbench run --hyperparameters`.
    """  # noqa: D301 - click wants the character itself
    with friendly_errors("interrupted; finished trials are kept, the same command continues."):
        from .runner import check_models, check_writable, count_workers, plan_sweep
        from .study_report import study_table
        from .tracking_uri import redact
        from .tuned_sweep import FILE, StudyOptions, tune_alone

        settings = {
            "trials": options.pop("trials"),
            "development_models": options.pop("development_models"),
            "objectives": list(options.pop("objective")) or None,
            "track": options.pop("track"),
            "sampler": options.pop("sampler"),
            "seed": options.pop("seed"),
            "tolerance": options.pop("tolerance"),
            "time_limit_s": options["time_limit"],
        }
        absent = dict.fromkeys(("seeds", "shadows", "hyperparameters"))
        given = {"method": methods, "probe": (), **absent, **options}
        spec, where, problems = _read(given, {k: v for k, v in settings.items() if v is not None})
        with problems.noted():
            narrowed = _narrowed(options["search"])
        sweep, data, _, device = plan_sweep(spec, where, problems)
        with redirect_stdout(sys.stderr):
            check_models(sweep, data)
            check_writable(where.out)
            workers = count_workers(where.workers, device)
            wishes = StudyOptions(options["storage"], options["study"], narrowed)
            studies, tracked, ui = tune_alone(sweep, data, device, where, workers, wishes)
        if not studies:
            raise InputError(
                f"there is nothing to tune: {', '.join(f'`{m}`' for m in methods)} declare no "
                "search ranges, or serve none of the scenarios."
            )
        for study in studies:
            click.echo(study_table(study) + "\n")
        if not tracked:
            click.echo(
                "MLflow is not complete; run the same command again to complete it.", err=True
            )
        click.echo(f"Hyper-parameters: {where.out / FILE}   MLflow UI: {ui}")
        address = studies[0].optuna.address
        click.echo(f"Studies: optuna-dashboard {redact(address)}")
        if any(study.tuned.tuning is None or study.tuned.tuning.reason for study in studies):
            sys.exit(SOME_FAILED)


def _narrowed(texts: tuple[str, ...]) -> dict[str, Any]:
    """Read what `--search` says."""
    from .spec_string import parse_spec

    found: dict[str, Any] = {}
    for text in texts:
        try:
            found |= parse_spec(f"search[{text}]").params
        except InputError:
            raise InputError(
                f"`--search` is written `NAME=[LOW,HIGH]` or `NAME=[CHOICE,CHOICE]`; got `{text}`."
            ) from None
    return found


@cli.command()
@_sweep_options
@click.option(
    "--to", "target", required=True, type=click.Path(path_type=Path), help="File to write."
)
def request(target: Path, **options: Any) -> None:  # noqa: ANN401
    """Export the forget request of a scenario, to be used again with `ids[file=…]`."""
    with friendly_errors():
        from .files import write_text_atomically
        from .runner import plan_sweep

        spec, where, problems = _read(options)
        _, data, planned, _ = plan_sweep(spec, where, problems)
        requests = {c.request.hash: c for c in planned.cells}
        if len(requests) != 1:
            raise InputError(
                f"this sweep has {len(requests)} forget requests; "
                "name one dataset and one scenario with --dataset and --scenario."
            )
        cell = next(iter(requests.values()))
        try:
            write_text_atomically(target, cell.request.to_json(cell.dataset, cell.scenario))
        except OSError as error:
            raise InputError(f"`{target}` cannot be written: {error.strerror}.") from None
        click.echo(
            f"Forget request {cell.request.hash}: {len(cell.request.forget)} of "
            f"{len(data[0].split.training)} training examples, in {target}"
        )


@cli.command()
@click.argument("what", type=click.Choice(["methods", "datasets", "models", "scenarios", "sweeps"]))
@click.argument("pattern", default="")
@click.option(
    "--plugin",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Python file with further methods or datasets. Repeatable.",
)
def ls(what: str, pattern: str, plugin: tuple[Path, ...]) -> None:
    """List methods, datasets, models (any timm architecture), scenarios or sweeps, one a line.

    PATTERN is a wildcard, e.g. `unlearnbench ls models "resnet*"`.
    """
    with friendly_errors():
        from .listing import listing
        from .registry import load_plugin_files

        load_plugin_files(plugin)
        for line in listing(what, pattern):
            click.echo(line)


cli.add_command(leaderboard)
cli.add_command(diff)


@cli.command()
@click.argument("folders", nargs=-1, metavar="[FOLDER]...", type=click.Path(path_type=Path))
@_store
@_tracking_uri
@_log_models
def sync(
    folders: tuple[Path, ...], store: Path, tracking_uri: str | None, log_models: bool
) -> None:
    """Complete MLflow from the records in FOLDERs or of sweeps in results/; trains nothing.

    \b
    unlearnbench sync                        # results/quickstart
    unlearnbench sync my_sweep --tracking-uri http://localhost:5000
    """  # noqa: D301 - click wants the character itself
    with friendly_errors("interrupted; the same command continues."):
        from .sync import sync_sweeps

        incomplete = False
        for done in sync_sweeps(folders or (Path("quickstart"),), store, tracking_uri, log_models):
            click.echo(done.line)
            incomplete |= not done.complete
        if incomplete:
            sys.exit(SOME_FAILED)


cli.add_command(make_report_command(friendly_errors))


def _read(
    options: dict[str, Any], tune: dict[str, Any] | None = None
) -> tuple[SweepSpec, RunOptions, Problems]:
    """Read the sweep file and lay the command line over it; and note what is wrong with both.

    With settings of tuning, the sweep is one for `tune` alone.
    """
    from .runner import RunOptions
    from .spec_string import split_specs
    from .sweep import read_sweep
    from .tracking_uri import check_uri

    problems = Problems()
    path: Path | None = options["sweep"]
    overrides: dict[str, Any] = {}
    for option in ("dataset", "model", "method", "scenario", "recipe"):
        if options[option]:
            overrides[f"{option}s"] = [s for text in options[option] for s in split_specs(text)]
    if options["seeds"] is not None:
        with problems.noted():
            overrides["seeds"] = _seeds(options["seeds"])
    if options["time_limit"] is not None:
        overrides["time_limit_s"] = options["time_limit"]
    if options["probe"]:
        overrides["probes"] = list(options["probe"])
    if options["hyperparameters"] is not None:
        overrides["hyperparameters"] = str(options["hyperparameters"])
    if tune is not None:
        overrides |= {"ulira": {}, "probes": [], "hyperparameters": None}
        names = [re.split(r"[^\w.\-]", str(method).strip())[0] for method in overrides["methods"]]
        overrides["name"] = "-".join(["tune", *dict.fromkeys(filter(None, names))])[:80]
    if options["name"] is not None:
        overrides["name"] = options["name"]
    elif (
        tune is None
        and path is None
        and (
            overrides
            or options["plugin"]
            or options["epochs"] is not None
            or options["shadows"] is not None
        )
    ):
        overrides["name"] = "custom"
    if options.get("log_models"):
        overrides["save_models"] = True  # what is not kept cannot be logged
    try:
        spec = read_sweep(
            path,
            overrides,
            plugins=options["plugin"],
            epochs=options["epochs"],
            shadows=options["shadows"],
            tune=tune,
            problems=problems,
        )
    except InputError as error:  # no sweep to go on with
        problems.note(error)
        problems.raise_any()
        raise
    uri = options.get("tracking_uri")
    if uri is not None:
        with problems.noted():
            check_uri(uri)
    where = RunOptions(
        store=options["store"],
        out=options.get("out") or Path("results") / spec.name,
        data_root=options["data_root"],
        tracking_uri=uri,
        workers=options.get("workers"),
        device=options["device"],
        log_models=options.get("log_models", False),
    )
    return spec, where, problems


def _seeds(text: str) -> int | list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 0 or (len(numbers) == 1 and numbers[0] < 1):
        raise InputError(
            f"`--seeds` must be a number of seeds, at least 1, or a list like 0,4,7; got `{text}`."
        )
    return numbers[0] if len(numbers) == 1 and "," not in text else numbers


def _sync_command(result: RunResult, where: RunOptions) -> str:
    """The command that completes MLflow later, with what is not a default."""
    from .tracking_uri import redact

    parts = ["unlearnbench", "sync", str(result.out)]
    if where.store != Path(".unlearnbench"):
        parts += ["--store", str(where.store)]
    uri = where.tracking_uri
    if uri is not None and uri != os.environ.get("MLFLOW_TRACKING_URI"):
        parts += ["--tracking-uri", redact(uri)]
    return shlex.join([*parts, *(["--log-models"] if where.log_models else [])])


def _report(result: RunResult, sync_command: str) -> None:
    """Table and closing lines on stdout."""
    from .terminal import terminal_table

    click.echo(terminal_table(result.records, result.banks, result.attacks))
    if not result.tracked:
        click.echo(f"MLflow is not complete; `{sync_command}` completes it.", err=True)
    summary = result.summary
    done = f"{summary['jobs']:g} jobs in {summary['wall_s']:.1f} s"
    if summary["jobs"]:
        done += f", {summary['busy_share']:.0%} of it training, unlearning and measuring"
    counts = ", ".join(f"{summary[f'cells_{s}']:g} {s}" for s in ("ok", "failed", "skipped"))
    click.echo(f"Cells: {counts}. {done}.")
    click.echo(f"Results: {result.out / 'leaderboard.html'}   MLflow UI: {result.ui_command}")


for command in (check, new_method, new_dataset):
    cli.add_command(command)


def main() -> None:
    """Entry point of the console script."""
    # third parties have much to say when they are imported; the sweep has one voice
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    try:
        cli()
    except UnlearnBenchError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(BAD_INPUT)
    except SystemExit as end:
        if end.code != INTERRUPTED:
            raise
        # a thread may be inside C++ (MLflow's imports), which aborts when Python ends under it
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(INTERRUPTED)
