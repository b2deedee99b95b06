"""Figures of the leaderboard: what is drawn, that it can be read, and what its words say."""

from __future__ import annotations

import doctest
import itertools
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from unlearnbench.bench import drawing, trade_off
from unlearnbench.bench.attack_figure import sketch_attack
from unlearnbench.bench.attack_record import AttackRecord
from unlearnbench.bench.class_breakdown import class_breakdowns
from unlearnbench.bench.class_figure import sketch_classes
from unlearnbench.bench.drawing import Drawing, drawing_style, extremes, short
from unlearnbench.bench.figures import all_drawings, board_drawings, table_drawings
from unlearnbench.bench.gap_figure import sketch_gaps
from unlearnbench.bench.leaderboard import build
from unlearnbench.bench.leakage_figure import histogram, sketch_leakage
from unlearnbench.bench.pareto_figure import sketch_pareto, sketch_pareto_of_tasks
from unlearnbench.bench.rank_figure import sketch_ranks
from unlearnbench.bench.recipe_figure import costs_by_data, sketch_recipes
from unlearnbench.bench.render import write_leaderboard
from unlearnbench.bench.roc_figure import sketch_roc, tpr_at
from unlearnbench.bench.tablecell import TIMES_SIGN
from unlearnbench.bench.trade_off import non_dominated

from .made_records import made_records
from .test_leaderboard import cell
from .test_leaderboard_attack import figures, hit, references

FEW, MANY = 3, 30
RECIPES = ("plain", "orthogonal[weight=0.1]")


def board_of(methods=FEW, **wishes):
    return build(*made_records(methods, **wishes))


@pytest.fixture(scope="module", params=[FEW, MANY], ids=["3 methods", "30 methods"])
def board(request):
    return board_of(request.param)


@pytest.fixture(scope="module")
def many():
    return board_of(MANY, tasks=2, seeds=1)


@pytest.fixture(scope="module")
def ten_tasks():
    return board_of(FEW, tasks=10, seeds=1)


@pytest.fixture(scope="module")
def drawn():
    """All figures of few methods with several recipes."""
    return dict(all_drawings(board_of(FEW, recipes=RECIPES)).by_file())


@pytest.fixture
def styled():
    with drawing_style():
        yield


def changed(board, method, **values):
    """The board with other values in the rows of one method of its first table."""
    table = board.tables[0]
    rows = table.rows.copy()
    for name, value in values.items():
        rows.loc[rows["method"] == method, name] = value
    return replace(board, tables=[replace(table, rows=rows), *board.tables[1:]])


SKETCHES = {
    "pareto": lambda board: sketch_pareto(board.tables[0], board),
    "ulira": lambda board: sketch_attack(board.tables[0]),
    "gaps": lambda board: sketch_gaps(board.tables[0]),
    "roc": lambda board: sketch_roc(board.tables[0], board),
    "leakage": lambda board: sketch_leakage(board.tables[0], board),
}
OVERALL = {
    "ranks": lambda board: sketch_ranks(board.standings),
    "pareto over tasks": sketch_pareto_of_tasks,
    "classes": lambda board: sketch_classes(class_breakdowns(board)[0], board),
}


# --- nothing lies over anything -------------------------------------------------------------------


def texts_of(figure):
    """Tick labels, titles, legends and free texts that are seen, with their boxes."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    texts = []
    for axes in figure.axes:
        texts += [*axes.texts, axes.title, axes.xaxis.label, axes.yaxis.label]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            texts += [
                tick.label1
                for tick in axis.get_major_ticks()
                if low <= tick.get_loc() <= high and tick.label1.get_visible()
            ]
    for legend in figure.legends:
        texts += legend.get_texts()
    seen = [text for text in texts if text.get_text().strip() and text.get_visible()]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in seen]


def overlapping(boxes):
    return [
        (one[0], other[0])
        for one, other in itertools.combinations(boxes, 2)
        # boxes that touch by a hair are not over each other
        if one[1].x0 + 0.5 < other[1].x1 and other[1].x0 + 0.5 < one[1].x1
        and one[1].y0 + 0.5 < other[1].y1 and other[1].y0 + 0.5 < one[1].y1
    ]  # fmt: skip


def assert_readable(figure):
    boxes = texts_of(figure)
    assert boxes
    assert overlapping(boxes) == []
    width, height = figure.get_size_inches() * figure.dpi
    for text, box in boxes:
        assert box.x0 > -1, text
        assert box.x1 < width + 1, text
        assert box.y0 > -1, text
        assert box.y1 < height + 1, text


@pytest.mark.parametrize("name", SKETCHES)
@pytest.mark.usefixtures("styled")
def test_no_label_lies_over_another_or_outside(board, name):
    assert_readable(SKETCHES[name](board).figure)


@pytest.mark.parametrize("name", ["pareto", "gaps", "roc"])
@pytest.mark.usefixtures("styled")
def test_no_label_lies_over_another_with_several_recipes_and_long_names(name):
    board = board_of(9, recipes=(*RECIPES, "augmented[rotate=True,crop=True,flip=True,noise=0.1]"))
    assert_readable(SKETCHES[name](board).figure)


@pytest.mark.parametrize("name", OVERALL)
@pytest.mark.usefixtures("styled")
def test_no_label_lies_over_another_in_figures_of_all_tables(name, many, ten_tasks):
    for board in (ten_tasks, many):
        assert_readable(OVERALL[name](board).figure)


@pytest.mark.usefixtures("styled")
def test_labels_that_lie_over_each_other_would_be_found():
    figure = SKETCHES["gaps"](board_of()).figure
    figure.axes[0].text(0.5, 0.5, "one")
    figure.axes[0].text(0.5, 0.5, "other")
    assert ("one", "other") in overlapping(texts_of(figure))


def test_many_methods_stay_small(many):
    drawings = [*table_drawings(many.tables[0], many), *board_drawings(many)]
    assert len(drawings) == 8
    assert {d.suffix: len(d.svg) for d in drawings if len(d.svg) > 120_000} == {}


# --- what has to be weighed -----------------------------------------------------------------------


def weighed(method, seed=0, *, acc, speedup, gap_test, **changes):
    """A method with U-LIRA (its null band ends at 0.519), speed-up and test gap."""
    made = hit(method, seed, figure=figures(acc), forget=0.5, gap=0.01, **changes)
    metrics = made.metrics | {"gap_test_acc": gap_test}
    return made.model_copy(update={"metrics": metrics, "times": made.times | {"speedup": speedup}})


def weighed_board(*records):
    return build([*references(), cell("retrain", 1), *records])


def bold(sketch):
    return [t.get_text() for t in sketch.figure.legends[0].get_texts() if t.get_weight() == "bold"]


@pytest.mark.usefixtures("styled")
def test_in_a_ring_is_who_is_beaten_by_none_in_all_three():
    board = weighed_board(
        weighed("fast", acc=0.60, speedup=50, gap_test=0.01),
        weighed("private", acc=0.52, speedup=5, gap_test=0.01),
        weighed("useful", acc=0.60, speedup=5, gap_test=0.001),
        weighed("beaten", acc=0.61, speedup=4, gap_test=0.02),
    )
    sketch = sketch_pareto(board.tables[0], board)
    assert sorted(bold(sketch)) == ["fast", "private", "useful"]
    for panel in sketch.figure.axes:
        rings = [line for line in panel.lines if line.get_markersize() == 14]
        assert len(rings) == 3
    assert "Not beaten: private, fast, useful." in sketch.alt


@pytest.mark.usefixtures("styled")
def test_methods_inside_the_null_band_are_tied_so_that_the_faster_one_wins():
    board = weighed_board(
        weighed("lower", acc=0.49, speedup=5, gap_test=0.01),
        weighed("faster", acc=0.515, speedup=6, gap_test=0.01),
    )
    assert bold(sketch_pareto(board.tables[0], board)) == ["faster"]


@pytest.mark.parametrize("column", ["attack_validity", "gate"])
@pytest.mark.usefixtures("styled")
def test_what_does_not_count_or_fails_the_gate_beats_nobody(column):
    board = weighed_board(
        weighed("best", acc=0.50, speedup=50, gap_test=0.0),
        weighed("good", acc=0.55, speedup=5, gap_test=0.01),
    )
    assert bold(sketch_pareto(board.tables[0], board)) == ["best"]
    bad = changed(board, "best", **{column: "suspected" if column != "gate" else "fail"})
    sketch = sketch_pareto(bad.tables[0], bad)
    assert bold(sketch) == ["good"]
    crosses = [line for line in sketch.figure.axes[0].lines if line.get_marker() == "x"]
    said = (
        "Crosses do not count: best." if crosses else "Outline only: fails the utility gate (best)."
    )
    assert said in sketch.caption
    assert bool(crosses) == (column == "attack_validity")
    # the words on extremes leave out what does not count
    assert ("50.0 % (best)" in sketch.alt) == (column == "gate")


@pytest.mark.usefixtures("styled")
def test_every_method_has_a_mark_of_its_own(board):
    sketch = sketch_pareto(board.tables[0], board)
    methods = board.tables[0].rows.query("kind == 'method'")["method"]
    for panel in sketch.figure.axes:
        marks = {
            line.get_label(): (to_hex(line.get_color()), line.get_marker())
            for line in panel.lines
            if line.get_label() in set(methods)
        }
        assert len(marks) == len(methods)
        assert len(set(marks.values())) == len(methods)


@pytest.mark.usefixtures("styled")
def test_a_method_looks_the_same_in_every_table():
    first, second = board_of(5), board_of(5, tasks=2)
    one, other = (
        {
            line.get_label(): (line.get_color(), line.get_marker())
            for line in sketch_pareto(table, board).figure.axes[0].lines
        }
        for board, table in ((first, first.tables[0]), (second, second.tables[1]))
    )
    methods = [name for name in one if name.startswith("method-")]
    assert {name: one[name] for name in methods} == {name: other[name] for name in methods}


@pytest.mark.usefixtures("styled")
def test_the_null_band_is_shaded_where_it_is():
    board = weighed_board(weighed("scrub", acc=0.55, speedup=5, gap_test=0.01))
    panel = sketch_pareto(board.tables[0], board).figure.axes[0]
    (band,) = panel.patches
    box = band.get_window_extent().transformed(panel.transData.inverted())
    assert (box.y0, box.y1) == pytest.approx((48.1, 51.9))


@pytest.mark.usefixtures("styled")
def test_without_an_attack_the_forget_gap_is_weighed():
    board = board_of(attacked=False)
    sketch = sketch_pareto(board.tables[0], board)
    assert [axes.get_title() for axes in sketch.figure.axes] == ["Forget accuracy", "Test accuracy"]
    assert sketch.suffix == "-speed"
    assert "the forget gap from 2.3 points (method-00)" in sketch.alt


@pytest.mark.usefixtures("styled")
def test_without_speed_ups_seconds_are_drawn_faster_to_the_right():
    records = [
        *references(),
        hit("slow", gap=0.1, times={"unlearn_s": 30.0}),
        hit("quick", gap=0.1, times={"unlearn_s": 2.0}),
    ]
    board = build(records)
    sketch = sketch_pareto(board.tables[0], board)
    left, right = sketch.figure.axes[0].get_xlim()
    assert left > 30 > 2 > right
    assert "Seconds of unlearning from 2.00 s (quick) to 30.00 s (slow)" in sketch.alt


@pytest.mark.usefixtures("styled")
def test_the_figure_says_which_methods_it_leaves_out_and_why():
    fast = {"times": {"unlearn_s": 1.0, "speedup": 9.0}}
    records = [
        cell("retrain"),
        cell("scrub", gap=0.1, **fast),
        cell("osp", **fast),
        cell("neggrad", status="failed", reason="not finite"),
        cell("svd", status="skipped", reason="no layer"),
    ]
    board = build(records)
    caption = sketch_pareto(board.tables[0], board).caption
    assert "neggrad (1 failed)" in caption
    assert "svd (not applicable)" in caption
    assert "osp (no speed-up or no retrained model)" in caption


@pytest.mark.usefixtures("styled")
def test_controls_are_hollow_and_on_no_front():
    board = weighed_board(
        weighed("mask", acc=0.50, speedup=500, gap_test=0.0),
        weighed("scrub", acc=0.55, speedup=5, gap_test=0.01),
    )
    board = changed(board, "mask", kind="control")
    sketch = sketch_pareto(board.tables[0], board)
    assert bold(sketch) == ["scrub"]
    (mask,) = (line for line in sketch.figure.axes[0].lines if line.get_label() == "mask")
    assert mask.get_markerfacecolor() != mask.get_markeredgecolor()
    assert "of 1 method." in sketch.alt


@pytest.mark.usefixtures("styled")
def test_means_over_tasks_hold_the_methods_that_are_on_all_of_them():
    one, other = "class[classes=[3]]", "class[classes=[4]]"
    records = []
    for scenario, acc, speedup in ((one, 0.54, 4.0), (other, 0.58, 9.0)):
        records += references(scenario=scenario)
        records.append(weighed("scrub", acc=acc, speedup=speedup, gap_test=0.01, scenario=scenario))
    records.append(weighed("svd", acc=0.5, speedup=2, gap_test=0.01, scenario=one))
    sketch = sketch_pareto_of_tasks(build(records))
    assert "U-LIRA 56.0 % (scrub)" in sketch.alt
    assert f"6.0 {TIMES_SIGN} (scrub)" in sketch.alt  # the geometric mean of 4 and 9
    assert "Left out: svd (1 of 2 tasks)." in sketch.caption
    assert sketch_pareto_of_tasks(build(records[:3])) is None


def test_non_dominated_is_what_pair_by_pair_comparison_gives():
    rng = np.random.default_rng(0)
    costs = rng.integers(0, 4, size=(60, 3)).astype(float)
    expected = [
        not any((b <= a).all() and (b < a).any() for b in costs)
        for a in costs
    ]  # fmt: skip
    assert non_dominated(costs).tolist() == expected
    assert non_dominated(np.empty((0, 3))).tolist() == []


# --- gaps -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("styled")
def test_bars_whiskers_and_noise_floor_are_the_numbers_of_the_table():
    retrained = [cell("retrain", seed, forget=value) for seed, value in ((0, 0.1), (1, 0.4))]
    records = [*retrained, cell("scrub", 0, gap=0.10), cell("scrub", 1, gap=0.30)]
    sketch = sketch_gaps(build(records).tables[0])
    panel = sketch.figure.axes[0]
    widths = [bar.get_width() for bar in panel.patches]
    assert widths == pytest.approx([30, 20])  # the floor |0.1 - 0.4|, and the mean gap
    (whisker,) = panel.collections[0].get_segments()
    assert whisker[:, 0] == pytest.approx([20 - 14.142, 20 + 14.142], abs=0.001)
    assert "Forget gap 20.00 points (scrub); noise floor 30.00." in sketch.alt


@pytest.mark.usefixtures("styled")
def test_the_retain_gap_is_shown_where_some_row_has_one():
    records = [cell("retrain"), cell("scrub", gap=0.1)]
    titles = [axes.get_title() for axes in sketch_gaps(build(records).tables[0]).figure.axes]
    assert titles == ["Forget gap", "Test gap"]
    records[1].metrics["gap_retain_acc"] = 0.2
    titles = [axes.get_title() for axes in sketch_gaps(build(records).tables[0]).figure.axes]
    assert titles == ["Forget gap", "Retain gap", "Test gap"]


@pytest.mark.usefixtures("styled")
def test_one_seed_has_bars_without_whiskers():
    sketch = sketch_gaps(build([cell("retrain"), cell("scrub", gap=0.1)]).tables[0])
    assert "A bar without whiskers is of one seed." in sketch.caption
    assert "standard deviation" not in sketch.caption
    assert all(len(c.get_segments()) == 0 for c in sketch.figure.axes[0].collections)


@pytest.mark.usefixtures("styled")
def test_without_a_retrained_model_there_are_no_gaps_to_draw():
    table = build([cell("scrub"), cell("identity")]).tables[0]
    assert sketch_gaps(table) is None
    assert sketch_pareto(table, build([])) is None


# --- the attack -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("styled")
def test_every_row_with_a_figure_has_one_dot(board):
    panel = sketch_attack(board.tables[0]).figure.axes[0]
    dots = sum(len(line.get_xdata()) for line in panel.lines if line.get_marker() == "o")
    rows = board.tables[0].rows["ulira.privacy/acc"].notna().sum()
    assert dots == len(panel.get_yticklabels()) == rows


@pytest.mark.usefixtures("styled")
def test_figures_that_do_not_count_are_crosses():
    records = [*references(retrain=0.6), hit("scrub")]
    sketch = sketch_attack(build(records).tables[0])
    shapes = {line.get_marker(): len(line.get_xdata()) for line in sketch.figure.axes[0].lines}
    assert shapes["x"] == 3
    assert shapes["o"] == 0
    assert "Crosses do not count" in sketch.caption
    assert "Of 1 the figure does not count." in sketch.alt


@pytest.mark.usefixtures("styled")
def test_words_on_the_attack_hold_the_extreme_values():
    records = [*references(), hit("scrub", acc=0.574), hit("svd", acc=0.51)]
    alt = sketch_attack(build(records).tables[0]).alt
    assert "Original (identity): 66.0 %. Retrained: 50.3 %." in alt
    assert "from 51.0 % (svd) to 57.4 % (scrub)" in alt
    assert "1 of 2 are not above their null band." in alt


def curves(sketch, panel=0):
    lines = sketch.figure.axes[panel].lines
    return {line.get_label(): line for line in lines if line.get_drawstyle() == "steps-post"}


@pytest.mark.usefixtures("styled")
def test_a_curve_is_the_roc_of_its_row_on_two_log_axes(board):
    sketch = sketch_roc(board.tables[0], board)
    axes = sketch.figure.axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    rows = board.tables[0].rows.set_index("method")
    roc = board.attacks[rows.loc["original (identity)", "attack_scores"]].roc
    line = curves(sketch)["original (identity)"]
    assert line.get_xdata() == pytest.approx([rate for rate in roc["fpr"] if rate > 0])
    known = np.array(roc["fpr"]) > 0
    assert line.get_ydata() == pytest.approx(np.array(roc["tpr"])[known])
    diagonal = next(line for line in axes.lines if line.get_linestyle() == ":")
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata())


@pytest.mark.usefixtures("styled")
def test_of_many_methods_the_best_and_the_worst_have_a_colour():
    board = board_of(MANY)
    sketch = sketch_roc(board.tables[0], board)
    methods = board.tables[0].rows.query("kind == 'method'").set_index("method")
    order = list(methods["ulira.privacy/acc"].sort_values().index)
    coloured = {*order[:3], *order[-3:]}
    shown = {text.get_text() for text in sketch.figure.legends[0].get_texts()}
    assert shown == coloured | {"original (identity)", "retrained", "others"}
    named = sketch.caption.split("Thin grey: ")[1]
    assert all(name in named for name in order[3:-3])
    assert not any(f"{name}," in named for name in coloured)
    steps = [x for x in sketch.figure.axes[0].lines if x.get_drawstyle() == "steps-post"]
    assert len(steps) == MANY + 2


def test_rate_of_a_curve_is_that_of_the_last_threshold_allowed():
    roc = {"fpr": [0.0, 0.005, 0.02, 1.0], "tpr": [0.1, 0.2, 0.4, 1.0]}
    assert [tpr_at(roc, fpr) for fpr in (0.0, 0.01, 0.02, 1.0)] == [0.1, 0.2, 0.4, 1.0]


def pair_record(hits):
    """A record whose attack is right as often as told, by pair and example, in {0, ½, 1}."""
    hits = np.asarray(hits)
    arrays = {
        "ids": np.arange(hits.shape[1]),
        "privacy.in_scores": np.where(hits > 0, 1.0, -1.0),
        "privacy.out_scores": np.where(hits == 1, -1.0, 1.0),
    }
    return AttackRecord.of("k", "b", arrays)


@pytest.mark.parametrize("pairs", [1, 2, 3, 8, 11, 12, 13, 32, 100])
def test_bins_hold_every_example_and_equally_many_of_the_values_that_there_are(pairs):
    rng = np.random.default_rng(pairs)
    record = pair_record(rng.choice([0, 0.5, 1], size=(pairs, 40)))
    edges, shares = histogram(record)
    assert shares.sum() == pytest.approx(1)
    values = np.arange(2 * pairs + 1) / (2 * pairs)
    inside = np.histogram(values, edges)[0]
    assert len(set(inside[1:-1])) <= 1
    assert np.abs(values[:, None] - edges).min() > 1e-9  # none lies on the border of two
    assert edges[0] + edges[-1] == pytest.approx(1)
    assert len(shares) <= 25


@pytest.mark.usefixtures("styled")
def test_quantiles_are_those_of_the_examples(board):
    sketch = sketch_leakage(board.tables[0], board)
    rows = board.tables[0].rows
    keys = rows.loc[rows["attack_scores"] != "", "attack_scores"]
    expected = [np.quantile(board.attacks[key].per_example(), (0.05, 0.95)) for key in keys]
    lines = sketch.figure.axes[0].collections[0].get_segments()
    found = [segment[:, 0] for segment in lines]
    assert np.array(found) == pytest.approx(100 * np.array(expected))
    low, high = 100 * expected[0]
    assert f"5 % to 95 % quantile {low:.1f} to {high:.1f} %" in sketch.alt


@pytest.mark.usefixtures("styled")
def test_without_the_retrained_model_a_hump_stands_alone():
    made = made_records(FEW)
    kept = [record for record in made.records if record.method != "retrain"]
    board = build(kept, made.banks, made.attacks)
    sketch = sketch_leakage(board.tables[0], board)
    assert "Grey below a method" not in sketch.caption
    assert len(sketch.figure.axes[0].patches) == FEW + 1


@pytest.mark.usefixtures("styled")
def test_without_pair_by_pair_figures_there_are_no_curves():
    board = build([*references(), hit("scrub")])
    assert sketch_roc(board.tables[0], board) is None
    assert sketch_leakage(board.tables[0], board) is None


# --- ranks, classes, recipes ----------------------------------------------------------------------


@pytest.mark.usefixtures("styled")
def test_ranks_are_dots_with_intervals_and_need_two_tasks():
    board = board_of(5, tasks=3)
    sketch = sketch_ranks(board.standings)
    panel = sketch.figure.axes[0]
    dots = [x for line in panel.lines if line.get_marker() == "o" for x in line.get_xdata()]
    assert sorted(dots) == pytest.approx(sorted(row.mean_rank for row in board.standings.rows))
    intervals = [segment[:, 0].tolist() for segment in panel.collections[0].get_segments()]
    assert intervals == [[row.rank_lo, row.rank_hi] for row in board.standings.rows]
    best = board.standings.rows[0]
    assert f"95 % interval {best.rank_lo:.1f} to {best.rank_hi:.1f}" in sketch.alt
    assert sketch_ranks(board_of(5).standings) is None
    assert sketch_ranks(None) is None


@pytest.mark.usefixtures("styled")
def test_the_heat_map_holds_methods_by_classes(ten_tasks):
    board = ten_tasks
    (breakdown,) = class_breakdowns(board)
    sketch = sketch_classes(breakdown, board)
    cells = np.asarray(sketch.figure.axes[0].collections[0].get_array())
    rows = breakdown.rows
    expected = rows.loc[rows["method"] == "method-01", "ulira.privacy/acc"]
    names = [label.get_text() for label in sketch.figure.axes[0].get_yticklabels()]
    assert cells.shape == (len(names), 10)
    assert cells[names.index("method-01")] == pytest.approx(100 * expected.to_numpy())
    worst = rows.loc[rows["ulira.privacy/acc"].idxmax()]
    acc = f"{100 * worst['ulira.privacy/acc']:.1f} % ({worst['method']}, class {worst['class']})"
    assert acc in sketch.alt
    assert sketch.suffix == "all-classes-digits-resnet18"


@pytest.mark.usefixtures("styled")
def test_the_heat_map_leaves_blank_what_does_not_count():
    board = changed(board_of(FEW, tasks=2), "method-01", attack_validity="suspected")
    sketch = sketch_classes(class_breakdowns(board)[0], board)
    names = [label.get_text() for label in sketch.figure.axes[0].get_yticklabels()]
    cells = np.ma.filled(sketch.figure.axes[0].collections[0].get_array(), np.nan)
    blank = np.isnan(cells)
    assert blank[names.index("method-01")].tolist() == [True, False]
    assert blank.sum() == 1
    assert "Blank: not known, or it does not count." in sketch.caption


@pytest.mark.usefixtures("styled")
def test_where_nothing_was_attacked_the_heat_map_is_of_test_images_of_the_class():
    board = board_of(FEW, tasks=2, attacked=False)
    sketch = sketch_classes(class_breakdowns(board)[0], board)
    assert "accuracy on its test images of 5 rows on 2 forgotten classes" in sketch.alt
    cells = np.asarray(sketch.figure.axes[0].collections[0].get_array())
    assert cells[0] == pytest.approx([97, 97])


@pytest.mark.usefixtures("styled")
def test_a_hundred_classes_are_not_all_named_and_have_no_numbers():
    board = board_of(FEW, tasks=2)
    (breakdown,) = class_breakdowns(board)
    one = breakdown.rows[breakdown.rows["class"] == "0"]
    rows = pd.concat([one.assign(**{"class": f"class-{c:03}"}) for c in range(100)])
    classes = tuple(f"class-{c:03}" for c in range(100))
    sketch = sketch_classes(replace(breakdown, rows=rows, classes=classes), board)
    assert_readable(sketch.figure)
    assert len(sketch.figure.axes[0].get_xticklabels()) < 30
    assert not sketch.figure.axes[0].texts


@pytest.mark.usefixtures("styled")
def test_recipes_are_drawn_where_there_are_several():
    assert costs_by_data(board_of()) == {}
    ((data, costs),) = costs_by_data(board_of(recipes=RECIPES)).items()
    assert data == ("digits", "resnet18")
    sketch = sketch_recipes(*data, costs)
    assert_readable(sketch.figure)
    dots = sketch.figure.axes[0].lines[0].get_xdata()
    assert dots == pytest.approx(100 * costs["test_acc_mean"].to_numpy())
    seconds = [bar.get_width() for bar in sketch.figure.axes[1].patches]
    assert seconds == pytest.approx([12.0, 12.0])
    assert f"({RECIPES[1]})" in sketch.alt


# --- files and words ------------------------------------------------------------------------------


def test_the_same_records_give_the_same_bytes_and_settings_of_the_caller_stay(drawn):
    mpl.get_backend()  # comparing would choose one, so it is chosen before
    before = mpl.rcParams.copy()
    again = all_drawings(board_of(FEW, recipes=RECIPES))
    assert mpl.rcParams == before
    assert dict(again.by_file()) == drawn
    assert len(drawn) == 6
    for one in drawn.values():
        assert ET.fromstring(one.svg).tag.endswith("svg")
        assert one.png.startswith(b"\x89PNG")


def test_inlined_figures_take_the_colours_of_the_page_and_have_ids_of_their_own(drawn):
    inlined = [one.inline_svg(name) for name, one in drawn.items()]
    ids = [found for svg in inlined for found in re.findall(r'\bid="([^"]*)"', svg)]
    assert len(ids) == len(set(ids))
    for svg in inlined:
        assert svg.startswith("<svg")
        assert "currentColor" in svg
        assert "#1f2933" not in svg
        assert "#fefefe" not in svg
        used = re.findall(r'(?:href="#|url\(#)([^")]*)', svg)
        assert set(used) <= set(ids)


@pytest.mark.parametrize(
    "records",
    [
        [],
        [cell("scrub", status="failed", reason="x")],
        [cell("scrub", status="skipped", reason="x")],
        [cell("scrub")],
        [hit("scrub", figure={}, attack={"reason": "none"})],
    ],
    ids=["empty", "failed", "skipped", "no references", "attack without a figure"],
)
def test_where_there_is_nothing_to_draw_nothing_is_drawn(records):
    assert list(all_drawings(build(records)).by_file()) == []


def test_names_that_no_figure_expects_are_drawn_as_they_are():
    wild = "<b>$x^2$ & 名\ufffd" + "long " * 30
    made = made_records(FEW)
    records = [
        record.model_copy(update={"method": wild}) if record.method == "method-01" else record
        for record in made.records
    ]
    drawings = all_drawings(build(records, made.banks, made.attacks))
    for _, one in drawings.by_file():
        text = "".join(ET.fromstring(one.svg).itertext())
        assert "<b>$x^2$ & 名" in text


def test_examples_in_docstrings_run():
    for module in (drawing, trade_off):
        found = doctest.testmod(module, extraglobs={"np": np})
        assert found.attempted > 0
        assert found.failed == 0


def test_long_names_are_cut_in_the_middle_and_stay_distinct():
    names = ["a" * 50 + f"{i}" + "b" * 50 for i in range(12)]
    shown = short(names)
    assert len(set(shown)) == 12
    assert max(map(len, shown)) <= 44 + 2
    assert short(["scrub", "scrub"]) == ["scrub", "scrub"]


def test_extremes_name_the_ends_and_pass_over_what_is_not_known():
    assert extremes(["a", "b", "c"], [2.0, float("nan"), 1.0], "s") == "from 1.0 s (c) to 2.0 s (a)"


def test_of_many_tables_each_is_drawn_only_if_all_are_asked_for(monkeypatch, ten_tasks):
    drawn = []

    def table_drawings(table, board):
        drawn.append(table.title)
        return [Drawing("<svg/>", b"", "alt", "caption", "-x")]

    overall = [Drawing("<svg/>", b"", "alt", "caption", "all-ranks")]
    monkeypatch.setattr("unlearnbench.bench.figures.table_drawings", table_drawings)
    monkeypatch.setattr("unlearnbench.bench.figures.board_drawings", lambda board: overall)
    assert [len(of) for of in all_drawings(ten_tasks).of_tables] == [1] * 10
    monkeypatch.setattr("unlearnbench.bench.figures.TABLES", 9)
    found = all_drawings(ten_tasks)
    assert [len(of) for of in found.of_tables] == [0] * 10
    assert [name for name, _ in found.by_file()] == ["all-ranks"]
    everything = all_drawings(ten_tasks, "all")
    assert [len(of) for of in everything.of_tables] == [1] * 10
    # tasks of one dataset, architecture and kind are numbered
    names = [name for name, _ in everything.by_file()]
    assert names[:2] == ["digits-resnet18-class-x", "digits-resnet18-class-2-x"]
    assert names[-1] == "all-ranks"
    drawn.clear()
    assert list(all_drawings(ten_tasks, "none").by_file()) == []
    assert drawn == []


def test_files_of_figures_are_written_and_named_in_the_markdown(tmp_path):
    made = made_records(FEW, recipes=RECIPES)
    written = write_leaderboard(made.records, tmp_path, made.banks, made.attacks)
    names = {path.name for path in written if path.parent.name == "figures"}
    table = {f"digits-resnet18-class-{s}" for s in ("pareto", "ulira", "gaps", "roc", "leakage")}
    both = {*table, "all-recipes-digits-resnet18"}
    assert names == {f"{name}.{kind}" for name in both for kind in ("svg", "png")}
    text = (tmp_path / "leaderboard.md").read_text()
    assert set(re.findall(r"\]\(figures/(.*)\.svg\)", text)) == both
    assert "Speed-up over retraining from" in text
    none = write_leaderboard(made.records, tmp_path / "none", made.banks, made.attacks, "none")
    assert not any(path.suffix in (".svg", ".png") for path in none)
