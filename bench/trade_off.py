"""What has to be weighed against each other, as numbers: privacy or forgetting, utility, time."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from .drawing import INK, short
from .drawn_rows import CONTROL, METHOD, Look, drawn_kinds, drawn_rows, excess, looks, without
from .leaderboard import NOISE_FLOOR, Leaderboard, Table

CONTROL_MARKERS = ("o", "s", "D", "^", "v")
GAPS = {"gap_forget": "forget accuracy", "gap_test": "test accuracy"}
AVERAGED = ("leak", "excess", *GAPS, *(f"over_{gap}" for gap in GAPS))


@dataclass(frozen=True, eq=False)
class TradeOff:
    """What is drawn of one task, or of the mean over tasks.

    Attributes:
        points: One row a method or control: `shown`, `kind`, `look`; `fast`, speed-up or 1 over
            seconds; `leak`, U-LIRA in %; `excess`, percentage points above the null band;
            `gap_forget` and `gap_test`, percentage points, and
            `over_gap_…`, what of them is above the noise floor of the recipe; `counts`, whether its
            figures count;
            `able`, whether it may be on the front.
        by_speedup: Whether `fast` is the speed-up; else times are drawn in seconds.
        floors: Noise floor of each gap, percentage points, of several recipes the largest; NaN
            where there is none.
        band: Ends of the null band in %; empty where there is none.
        lines: What the original models have, by the words of the legend: `leak` and gaps.
        attacked: Whether U-LIRA is drawn instead of the forget gap.
        left_out: Names with the reason.
    """

    points: pd.DataFrame
    by_speedup: bool
    floors: Mapping[str, float]
    band: tuple[float, ...] = ()
    lines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    attacked: bool = False
    left_out: Sequence[str] = ()

    @property
    def first(self) -> str:
        """What is weighed beside time and test gap: `leak` or `gap_forget`."""
        return "leak" if self.attacked else "gap_forget"

    def costs(self, name: str) -> pd.Series:
        """What of a quantity is to be as small as possible; ties inside the band are 0."""
        return self.points["excess" if name == "leak" else f"over_{name}"]

    def best(self, *names: str) -> npt.NDArray[np.bool_]:
        """`(points,)`, whether a method is beaten by none in these quantities and in time."""
        able = self.points["able"].to_numpy(dtype=bool)
        costs = np.column_stack([-self.points["fast"], *(self.costs(name) for name in names)])
        found = np.zeros(len(able), dtype=bool)
        found[able] = non_dominated(costs[able])
        return found


def trade_off(
    table: Table, look: Mapping[tuple[str, str], Look], *, attacked: bool
) -> TradeOff | None:
    """What is to be drawn of a table; None if no method has what it takes.

    Args:
        table: The table.
        look: Colours and shapes by method and recipe.
        attacked: Whether U-LIRA is drawn; else the forget gap.
    """
    if attacked and not table.attacked:
        return None
    rows = drawn_rows(table)
    hollow = itertools.cycle(CONTROL_MARKERS)
    rows["look"] = [
        look.get((str(method), str(recipe))) or Look(INK, next(hollow) if kind == CONTROL else "*")
        for method, recipe, kind in rows[["method", "recipe", "kind"]].to_numpy()
    ]
    by_speedup = bool((rows.loc[rows["kind"] == METHOD, "speedup_mean"] > 0).any())
    rows["fast"] = rows["speedup_mean"] if by_speedup else 1 / rows["unlearn_s_mean"]
    rows["leak"], rows["excess"] = 100 * rows["acc"], 100 * excess(rows)
    rows["gap_forget"], rows["gap_test"] = (100 * rows[f"gap_{m}_acc"] for m in ("forget", "test"))
    if attacked:
        reasons = {"no U-LIRA": rows["leak"].isna()}
        rows["counts"] = rows["tells"]
    else:
        reasons = {}
        rows["counts"] = True
    timeless = ~((rows["fast"] > 0) & np.isfinite(rows["fast"]))
    reasons |= {
        "no speed-up or no retrained model" if by_speedup else "no time or no retrained model": (
            timeless | rows["gap_test"].isna() | (rows["gap_forget"].isna() & (not attacked))
        )
    }
    floor = rows[rows["method"] == NOISE_FLOOR]
    for gap in GAPS:
        own = rows["recipe"].map(floor.set_index("recipe")[gap]).astype(float)
        rows[f"over_{gap}"] = (rows[gap] - own.fillna(0)).clip(lower=0)
    rows["able"] = rows["counts"] & (rows["kind"] == METHOD) & ~rows["fails"]
    points, left_out = without(rows[drawn_kinds(rows)], reasons)
    if not (points["kind"] == METHOD).any():
        return None
    band: tuple[float, ...] = ()
    if attacked and points["null_hi"].notna().any():
        band = (100 * points["null_lo"].median(), 100 * points["null_hi"].median())
    several = len(table.recipes) > 1
    return TradeOff(
        points,
        by_speedup,
        floors={gap: float(floor[gap].max()) for gap in GAPS},
        band=band,
        lines={
            f"original ({row['recipe']})" if several else "original": {
                name: float(row[name]) for name in ("leak", *GAPS)
            }
            for row in rows[rows["name"] == "identity"].to_dict("records")
            if row["n_ok"] > 0
        },
        attacked=attacked,
        left_out=left_out,
    )


def mean_trade_off(board: Leaderboard) -> tuple[TradeOff, int] | None:
    """Means over the tasks, of the speed-up the geometric one, and how many tasks there are.

    None with fewer than two tasks that can be compared, or if no method is on all of them.
    """
    look = looks(board)
    found = {table.title: trade_off(table, look, attacked=True) for table in board.tables}
    tasks = {title: trade for title, trade in found.items() if trade and trade.by_speedup}
    tasks = {title: trade for title, trade in tasks.items() if trade.points["counts"].any()}
    if len(tasks) < 2:
        return None
    several = len({recipe for table in board.tables for recipe in table.recipes}) > 1
    every = pd.concat(trade.points for trade in tasks.values())
    every = every[(every["kind"] == METHOD) & every["counts"]]
    names, left_out = [], [f"{title} (no U-LIRA that counts)" for title in found.keys() - tasks]
    left_out.sort()
    rows = []
    for (method, recipe), group in every.groupby(["method", "recipe"]):
        name = f"{method} ({recipe})" if several else str(method)
        if len(group) < len(tasks):
            left_out.append(f"{name} ({len(group)} of {len(tasks)} tasks)")
            continue
        names.append(name)
        means = {key: group[key].mean() for key in AVERAGED}
        fast = float(np.exp(np.log(group["fast"]).mean()))
        able = bool(group["able"].all())
        common = {
            "recipe": recipe,
            "kind": METHOD,
            "look": group["look"].iloc[0],
            "counts": True,
            "able": able,
        }
        rows.append({"fast": fast, **means, **common})
    if not rows:
        return None
    points = pd.DataFrame(rows).assign(shown=short(names))
    floors = {gap: float(np.mean([t.floors[gap] for t in tasks.values()])) for gap in GAPS}
    trade = TradeOff(points, by_speedup=True, floors=floors, attacked=True, left_out=left_out)
    return trade, len(tasks)


def non_dominated(costs: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """The rows than which no other is at most as costly in everything and cheaper in something.

    Args:
        costs: `(N, K)`, the less the better.

    Returns:
        `(N,)` bool.

    Example:
        >>> non_dominated(np.array([[1.0, 2.0], [2.0, 1.0], [2.0, 2.0]])).tolist()
        [True, True, False]
    """
    a, b = costs[:, None], costs[None]
    beaten = np.any(np.all(b <= a, axis=2) & np.any(b < a, axis=2), axis=1)
    return np.asarray(~beaten, dtype=np.bool_)
