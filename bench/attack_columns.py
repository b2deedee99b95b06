"""Columns of the attack: U-LIRA first, what qualifies it behind, and what they mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from .attack_rows import ACC, CELL_ATTACKS, EFFICACY, PRIVACY, RMIA, figure
from .tablecell import NONE, UNSEEN, VOID, Cell, Column, Row, known, number_cell

BAND_DASH = "\u2013"
Z95 = 1.96
LEGEND = {
    "U-LIRA %": (
        "How often a membership-inference attack on the unlearned models is right (balanced "
        "accuracy), ± half of its 95 % interval. It is told an example and has to say "
        "whether the model was trained on it and then made to forget it, or never saw it: "
        "“privacy”. 50 is a coin, 100 a full leak. Small or in parentheses, the null band: 95 % "
        "of the figures that a method without any leak would get (redrawing which models saw "
        "the example). Inside it, this many shadow models find no leak, and methods inside it "
        "are tied; that is no proof that there is none. Below the band something is amiss with "
        "the attack or the set-up: it is never better than 50. "
        "The figure is of the method over all shadow models, not of one seed. "
        "Shadow models are trained on half of the training set and each forgets its own share of "
        "the examples, so that the figure is an average over requests of this kind, not a "
        "statement about one deployed model; and the attack sees outputs only (black box). "
        f"{VOID}: the figure does not count; {UNSEEN}: it says nothing; the notes say why. "
        "Above band: how far the figure lies above the band, in percentage points, 0 inside it; "
        "methods are ranked by this. "
        "AUC: area under the ROC of the attack, 0.5 is a coin. p: how probable a figure so high is "
        "without any leak, counted over redraws."
    ),
    "RMIA": (
        "AUC of a simpler attack, the fallback where there are fewer than 6 shadow models. It is "
        "weaker, and blind to forgetting too much; 0.5 is a coin."
    ),
    "U-LIRA difference": (
        "U-LIRA less that of the original and of the retrained model, in percentage points, ± "
        "half of the 95 % interval. Paired (same shadow models, same examples), and so "
        "tighter than the two intervals."
    ),
    "U-LIRA by example": (
        "An average hides the few who are exposed. Most exposed: the attack's accuracy in % on "
        "the example at the 95 % quantile; with few shadow models it is high by chance alone, so "
        "compare it with the retrained model's. Above original: share of examples on which "
        "the attack is right more often than before unlearning."
    ),
    "U-LIRA TPR": (
        "Share of forgotten examples in % that the attack finds while it wrongly accuses 1 % of "
        "those never seen; small or in parentheses, the share that it really accused."
    ),
    "U-LIRA efficacy %": (
        "Another question than privacy: can the attack tell the unlearned model from a retrained "
        "one by its outputs on the forgotten examples? Any fingerprint that a method leaves on "
        "the model counts here, also one that reveals nobody's membership. 50 is a coin."
    ),
    "Streisand": (
        "Signs of forgetting too much, which gives an example away too. Too low: share of "
        "forgotten examples in % whose margin is below the 1 % quantile of never-trained ones; 1 "
        "is ideal. Spread ratio: standard deviation of margins of forgotten over never-trained "
        "examples; 1 is ideal."
    ),
    "retain privacy": (
        "Change of the attack's AUC on examples that were not forgotten, unlearned less original, "
        "± half of the 95 % interval. Above 0 they became more exposed."
    ),
    "population": (
        "AUC of one threshold on the margin for all examples of one model: the attack that is "
        "mostly published. It is weak where U-LIRA is strong."
    ),
    "KLoM": (
        "Divergence of the margins of unlearned from those of retrained models, nats, over "
        "examples; small or in parentheses its floor, what exact unlearning gets with so few "
        "models. The ideal is the floor, not 0."
    ),
    "forgetting score": (
        "F of the NeurIPS 2023 challenge, in [0, 1]; small or in parentheses, what exact "
        "unlearning gets with so few models, which is the ideal."
    ),
    "other MIA": (
        "Attacks on the one model of each seed, mean ± standard deviation over seeds; small or in "
        "parentheses the retrained model's value, which is the ideal: neither 0 nor 100 is. SVC "
        "efficacy: share of the forget set called non-members. Entropy: share called members. "
        "Challenge: accuracy of telling losses of forget from test examples."
    ),
}


def ulira_cell(row: Row, prefix: str = PRIVACY) -> Cell:
    """Balanced accuracy in % with its interval, and the null band beside it."""
    name = f"{prefix}acc"
    cell = number_cell(figure(row, name), Z95 * figure(row, f"{prefix}se"), 100, 1)
    low, high = figure(row, f"{prefix}null_lo"), figure(row, f"{prefix}null_hi")
    if cell.value is not None and known(low) and known(high):
        cell = cell._replace(beside=f"{100 * low:.1f}{BAND_DASH}{100 * high:.1f}")
    return _marked(row, name, cell)


def rmia_cell(row: Row) -> Cell:
    """AUC of the fallback with its interval."""
    return _interval(RMIA, row)


def primary_columns(rows: Sequence[Row]) -> list[Column]:
    """U-LIRA, also where it has no figure, and the fallback; none if no attack was made."""
    if not rows or "attack_validity" not in rows[0]:
        return []
    first = Column("U-LIRA %", "", ulira_cell, sub="null band", primary=True)
    above = Column("U-LIRA %", "above band", _excess_cell)
    auc = Column("U-LIRA %", "AUC", partial(_interval, f"{PRIVACY}auc"), sub="± 95 %", primary=True)
    p = Column("U-LIRA %", "p", partial(_plain, f"{PRIVACY}p"))
    rmia = Column("RMIA", "AUC", rmia_cell, sub="± 95 %", primary=True)
    return [first, *_filled([auc, above, p, rmia], rows)]


def secondary_columns(rows: Sequence[Row]) -> list[Column]:
    """Everything else that some row has a value for."""
    difference, example, streisand = "U-LIRA difference", "U-LIRA by example", "Streisand"
    efficacy = "U-LIRA efficacy %"
    points = partial(_interval, scale=100, digits=1)
    percent = partial(_plain, scale=100, digits=1)
    versus = {"to original": "identity", "to retrained": "retrain"}
    columns = [
        *(
            Column(difference, head, partial(points, f"{PRIVACY}acc_vs_{name}"), sub="± 95 %")
            for head, name in versus.items()
        ),
        Column(example, "most exposed %", partial(percent, "ulira/per_example_p95")),
        Column(example, "above original %", partial(percent, "ulira/share_above_identity")),
        Column("U-LIRA TPR", "at 1 % FPR", _tpr_cell, sub="real FPR"),
        Column(efficacy, "", partial(ulira_cell, prefix=EFFICACY), sub="null band"),
        Column(efficacy, "AUC", partial(_interval, f"{EFFICACY}auc"), sub="± 95 %"),
        Column(streisand, "too low %", partial(percent, f"{PRIVACY}low_share")),
        Column(streisand, "spread ratio", partial(_plain, f"{PRIVACY}spread_ratio", digits=2)),
        Column(
            "retain privacy",
            "AUC change",
            partial(_interval, "ulira.retain/auc_change"),
            sub="± 95 %",
        ),
        Column("population", "AUC", partial(_plain, "mia.population/auc")),
        *(
            Column("KLoM", head, partial(_floored, f"{family}/", name), sub="floor")
            for family, name, head in (
                ("klom", "mean", "mean"),
                ("klom", "median", "median"),
                ("klom", "p95", "95 %"),
                ("klom_gauss", "mean", "normal law"),
            )
        ),
        Column("forgetting score", "F", _forgetting_cell, sub="ideal"),
        *(
            Column("other MIA", head, partial(_cell_attack, name), sub="retrained")
            for name, head in zip(
                CELL_ATTACKS, ("SVC efficacy %", "entropy %", "challenge %"), strict=True
            )
        ),
    ]
    return _filled(columns, rows)


def legend_of(columns: Sequence[Column]) -> dict[str, str]:
    """What the groups that are shown mean, in their order."""
    groups = {column.group for column in columns}
    return {group: words for group, words in LEGEND.items() if group in groups}


def _filled(columns: Sequence[Column], rows: Sequence[Row]) -> list[Column]:
    return [c for c in columns if any(c.cell(row).text != NONE for row in rows)]


def _marked(row: Row, name: str, cell: Cell) -> Cell:
    """Cross out what does not count; it sorts with what is not known."""
    if cell.text == NONE:
        return cell
    validity = row.get("attack_validity")
    if validity == "suspected" or (validity == "biased" and name.startswith("ulira")):
        return cell._replace(mark=VOID, value=None)
    says_nothing = validity == "nothing to see" and name in (ACC, f"{PRIVACY}auc")
    return cell._replace(mark=UNSEEN) if says_nothing else cell


def _excess_cell(row: Row) -> Cell:
    """What methods are ranked by, in percentage points."""
    return _marked(row, ACC, number_cell(figure(row, "excess"), math.nan, 100, 1))


def _plain(name: str, row: Row, scale: float = 1, digits: int = 3) -> Cell:
    return _marked(row, name, number_cell(figure(row, name), math.nan, scale, digits))


def _interval(name: str, row: Row, scale: float = 1, digits: int = 3) -> Cell:
    half = Z95 * figure(row, f"{name}_se")
    return _marked(row, name, number_cell(figure(row, name), half, scale, digits))


def _beside(cell: Cell, value: float, scale: float, digits: int) -> Cell:
    shown = cell.text != NONE and known(value)
    return cell._replace(beside=f"{scale * value:.{digits}f}") if shown else cell


def _tpr_cell(row: Row) -> Cell:
    cell = _plain(f"{PRIVACY}tpr_0.01", row, 100, 1)
    return _beside(cell, figure(row, f"{PRIVACY}fpr_0.01"), 100, 1)


def _floored(prefix: str, name: str, row: Row) -> Cell:
    cell = _plain(f"{prefix}{name}", row, digits=2)
    return _beside(cell, figure(row, f"{prefix}floor_{name}"), 1, 2)


def _forgetting_cell(row: Row) -> Cell:
    cell = _plain("forgetting_score/f", row)
    return _beside(cell, figure(row, "forgetting_score/null"), 1, 3)


def _cell_attack(name: str, row: Row) -> Cell:
    cell = number_cell(figure(row, f"{name}_mean"), figure(row, f"{name}_std"), 100, 1)
    is_retrained = row["name"] == "retrain"
    return cell if is_retrained else _beside(cell, figure(row, f"{name}_retrained"), 100, 1)
