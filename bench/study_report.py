"""What a person reads of a study: tables and figures."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from tabulate import tabulate

from .objectives import MAXIMISED, front, rule
from .study import BUSY_S, FIGURES, REASON, TuningStudy
from .tablecell import significant

if TYPE_CHECKING:
    import optuna

    from .tuning import Study

# what Optuna's figures are drawn of, by the name of the file
FIGURE_NAMES = ("history", "importance", "parallel", "front")


def study_table(study: Study) -> str:
    """The front of a study as text, the chosen trial marked, with what the method was before."""
    target, tuning = study.target, study.tuned.tuning
    assert tuning is not None
    head = (
        f"{target.method.spec} on {target.loaded.dataset.spec}, {target.model}, "
        f"{target.recipe.name} recipe, forgetting {_kind(target.kind)}"
    )
    counts = f"{tuning.trials} trials ({tuning.failed} failed, {tuning.pruned} pruned)"
    cost = f"{counts} on {tuning.development_models} development models, {tuning.seconds:.1f} s"
    if tuning.reason is not None:
        return f"{head}\n{cost}. Nothing was chosen: {tuning.reason}."
    params = {t.number: t.params for t in study.optuna.counted()}
    best = front(study.points, target.settings.objectives)
    names = list(dict.fromkeys(name for point in best for name in params[point.number]))
    rows = [
        [
            "*" if point.number == tuning.trial else "",
            point.number,
            f"{100 * point.retain:.1f}",
            f"{100 * point.forget:.1f}",
            significant(point.seconds),
            *(_value(params[point.number].get(name)) for name in names),
        ]
        for point in sorted(best, key=lambda p: -p.forget)
    ]
    table = tabulate(
        rows,
        ["", "trial", "retain %", "forget %", "seconds", *names],
        disable_numparse=True,
        colalign=("left", *["right"] * (4 + len(names))),
    )
    note = rule(target.settings.objectives, target.settings.track, target.settings.tolerance)
    before = ""
    if tuning.original_retain is not None:
        before = f" Retain before unlearning: {100 * tuning.original_retain:.1f} %."
    return f"{head}\n{cost}.{before} {note}\n{table}"


def write_study(study: Study, folder: Path) -> None:
    """Write `trials.csv`, and figures as SVG and PNG, as far as there is something to draw."""
    folder.mkdir(parents=True, exist_ok=True)
    _trials(study.optuna).to_csv(folder / "trials.csv", index=False)
    (folder / "front.md").write_text(study_table(study) + "\n", encoding="utf-8")
    if len(study.points) < 2:
        return
    for name, draw in _figures(study.optuna.study, study.target.settings.objectives).items():
        _save(draw, folder / name)


def _trials(tuned: TuningStudy) -> pd.DataFrame:
    """One row a trial that counts."""
    return pd.DataFrame(
        [
            {
                "trial": t.number,
                "state": t.state.name.lower(),
                "reason": t.user_attrs.get(REASON, ""),
                "busy_s": t.user_attrs.get(BUSY_S),
                **{k: v for k, v in t.user_attrs.get(FIGURES, {}).items() if k != "number"},
                **{f"param.{name}": value for name, value in t.params.items()},
            }
            for t in tuned.counted()
        ]
    )


def _figures(study: optuna.Study, objectives: Sequence[str]) -> dict[str, Callable[[], Any]]:
    """What to draw, by the name of the file."""
    from optuna.visualization import matplotlib as drawing

    first = objectives[0]
    aimed: dict[str, Any] = {"target_name": first}
    if len(objectives) > 1:
        aimed["target"] = lambda trial: trial.values[0]
    figures: dict[str, Callable[[], Any]] = {
        "history": lambda: drawing.plot_optimization_history(study, **aimed),
        "importance": lambda: drawing.plot_param_importances(study, **aimed),
        "parallel": lambda: drawing.plot_parallel_coordinate(study, **aimed),
    }
    if 2 <= len(objectives) <= 3:
        figures["front"] = lambda: drawing.plot_pareto_front(study, target_names=list(objectives))
    return figures


def _save(draw: Callable[[], Any], path: Path) -> None:
    """Draw with Optuna, which has no figure of a study where all trials are alike."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    with warnings.catch_warnings(), mpl.rc_context():
        warnings.simplefilter("ignore")
        mpl.use("agg")
        try:
            draw()
        except (ValueError, RuntimeError, ZeroDivisionError):
            return
        finally:
            figure = plt.gcf()
        for kind in ("svg", "png"):
            figure.savefig(path.with_suffix(f".{kind}"), bbox_inches="tight", dpi=150)
        plt.close("all")


def _kind(kind: str) -> str:
    return "whole classes" if kind == "class" else "examples"


def _value(value: object) -> str:
    if value is None:
        return ""
    return significant(value) if isinstance(value, float) else str(value)
