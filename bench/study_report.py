"""What a person reads of a study: tables and figures."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from tabulate import tabulate

from .objectives import front, rule
from .study import FIGURES
from .tablecell import significant

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from .tuning import Study


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
    _trials(study).to_csv(folder / "trials.csv", index=False)
    (folder / "front.md").write_text(study_table(study) + "\n", encoding="utf-8")
    if len(study.points) < 2:
        return
    for name, draw in _figures(study).items():
        _save(draw, folder / name, len(study.target.space.dimensions))


def _trials(study: Study) -> pd.DataFrame:
    """One row a trial that counts."""
    return pd.DataFrame(
        [
            {
                "trial": t.trial,
                "state": t.state,
                "reason": t.reason or "",
                "busy_s": t.busy_s,
                **t.metrics,
                **{f"param.{name}": value for name, value in t.params.items()},
            }
            for t in study.trials
        ]
    )


def _figures(study: Study) -> dict[str, Callable[[], Any]]:
    """What to draw, by the name of the file; the front is ours, the others are Optuna's."""
    from optuna.visualization import matplotlib as drawing

    objectives, known = study.target.settings.objectives, study.optuna.study
    aimed: dict[str, Any] = {"target_name": objectives[0]}
    if len(objectives) > 1:
        # one number is drawn, and Optuna takes it for a loss
        aimed = {"target": _loss, "target_name": "1 - retain x forget"}
    figures: dict[str, Callable[[], Any]] = {
        "history": lambda: drawing.plot_optimization_history(known, **aimed),
        "importance": lambda: drawing.plot_param_importances(known, **aimed),
        "parallel": lambda: drawing.plot_parallel_coordinate(known, **aimed),
    }
    if len(objectives) > 1:
        figures["front"] = lambda: _draw_front(study)
    return figures


def _loss(trial: FrozenTrial) -> float:
    figures = trial.user_attrs[FIGURES]
    return 1 - float(figures["retain"] * figures["forget"])


def _draw_front(study: Study) -> None:
    """Retain against forget, the front filled, the chosen trial in a ring, seconds as colour."""
    import seaborn as sns
    from matplotlib import pyplot as plt

    best = {p.number for p in front(study.points, study.target.settings.objectives)}
    data = pd.DataFrame(study.points).assign(
        state=["on the front" if p.number in best else "other trials" for p in study.points]
    )
    axes = sns.scatterplot(
        data, x="forget", y="retain", hue="seconds", style="state", palette="viridis", s=60,
        markers={"on the front": "o", "other trials": "X"},
    )  # fmt: skip
    tuning = study.tuned.tuning
    chosen = data[data["number"] == (tuning.trial if tuning else None)]
    axes.scatter(
        chosen["forget"], chosen["retain"], s=220, facecolors="none", edgecolors="black",
        label="chosen",
    )  # fmt: skip
    if tuning is not None and tuning.original_retain is not None:
        axes.axhline(tuning.original_retain, color="grey", ls="--", label="before unlearning")
    axes.set(xlabel="forget (1 is best)", ylabel="retain (1 is best)")
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    plt.gcf().set_size_inches(7, 4.5)


def _save(draw: Callable[[], Any], path: Path, dimensions: int) -> None:
    """Draw; Optuna has no figure of a study where all trials are alike."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    with warnings.catch_warnings(), mpl.rc_context():
        warnings.simplefilter("ignore")
        mpl.use("agg")
        mpl.rcParams["svg.hashsalt"] = path.name  # the same trials give the same bytes
        mpl.rcParams["figure.figsize"] = (max(7.0, 1.5 * dimensions), 4.5)
        try:
            draw()
            for kind in ("svg", "png"):
                known = {"Date": None} if kind == "svg" else None
                plt.gcf().savefig(
                    path.with_suffix(f".{kind}"), bbox_inches="tight", dpi=150, metadata=known
                )
        except Exception:  # a figure must not cost a study
            return
        finally:
            plt.close("all")


def _kind(kind: str) -> str:
    return "whole classes" if kind == "class" else "examples"


def _value(value: object) -> str:
    if value is None:
        return ""
    return significant(value) if isinstance(value, float) else str(value)
