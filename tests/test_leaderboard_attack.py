"""U-LIRA on the leaderboard: figures, controls, and what does not count, by hand."""

from __future__ import annotations

import math
import re

import pandas as pd
import pytest

from unlearnbench.bench.attack_figure import sketch_attack
from unlearnbench.bench.attack_notes import attack_notes, ranking
from unlearnbench.bench.bank_record import BankRecord
from unlearnbench.bench.columns import columns_of, legend
from unlearnbench.bench.drawing import drawing_style
from unlearnbench.bench.leaderboard import build
from unlearnbench.bench.markdown import markdown
from unlearnbench.bench.render import write_leaderboard
from unlearnbench.bench.terminal import terminal_table

from .test_leaderboard import cell

SETTING = {
    "variant": "half_split", "shadows": 16, "examples": 163, "views": 1, "variance": "eb_t",
    "redraws": 200, "tuning_track": "none", "bank": "b0", "scores": "k0",
}  # fmt: skip
BAND = {"null_mean": 0.5, "null_sd": 0.01, "null_lo": 0.481, "null_hi": 0.519}
DASH = "\u2013"
NULL = f"48.1{DASH}51.9"
BANK = BankRecord(
    bank="b0",
    dataset="digits",
    model="resnet18[stem=small]",
    recipe="plain",
    shadows=16,
    metrics={"acc/in_mean": 0.998, "acc/in_std": 0.001, "acc/out_mean": 0.934, "acc/out_std": 0.008,
             "lira/auc": 0.7314, "lira/auc_se": 0.01, "time/training_s": 812.4},
)  # fmt: skip


def figures(acc, *, p=0.005, **more):
    """What a row carries; names without a room are those of `ulira.privacy`."""
    named = {"acc": acc, "se": 0.006, "auc": acc + 0.04, "auc_se": 0.01, "p": p} | BAND | more
    named = {k if "/" in k or k.startswith("mia_") else f"ulira.privacy/{k}": v
             for k, v in named.items()}  # fmt: skip
    return named | {"ulira/power_d0.5": 0.5777}


def hit(method, seed=0, acc=0.574, *, attack=None, figure=None, **changes):
    """One record of a row that was attacked."""
    made = cell(method, seed, attack=SETTING | (attack or {}), **changes)
    found = figures(acc) if figure is None else figure
    return made.model_copy(update={"metrics": made.metrics | found})


def references(*, identity=0.66, retrain=0.503, p=0.005, **changes):
    return [
        hit("identity", figure=figures(identity, p=p), **changes),
        hit("retrain", figure=figures(retrain, p=0.4), **changes),
    ]


def board_of(*records, banks=()):
    return build(records, banks)


def rows(*records):
    return build(records).tables[0].rows.set_index(["recipe", "method"])


def notes(*records, banks=()):
    board = build(records, banks)
    return attack_notes(board.tables[0], board)


def shown(*records, method="scrub", table=0):
    """Cells of one row by their heading in Markdown."""
    board = build(records)
    row = next(r for r in board.tables[table].rows.to_dict("records") if r["method"] == method)
    return {c.flat_head: c.cell(row) for c in columns_of(board.tables[table], board)}


def text(*records, banks=()):
    board = build(records, banks)
    return markdown(board, ["figure"] * len(board.tables), [[]] * len(board.tables))


# --- figures --------------------------------------------------------------------------------------


def test_the_first_number_is_ulira_with_its_interval_and_its_null_band():
    records = [*references(), hit("scrub")]
    board = build(records)
    heads = [column.flat_head for column in columns_of(board.tables[0], board)]
    assert heads[:7] == [
        "method", "place", "status", "U-LIRA % (null band)", "U-LIRA AUC", "U-LIRA above band",
        "U-LIRA p",
    ]  # fmt: skip
    cells = shown(*records)
    # 1.96 * 0.006 = 0.01176
    assert cells["U-LIRA % (null band)"] == ("57.4", 0.574, "± 1.2", NULL, "")
    assert cells["U-LIRA AUC"] == ("0.614", pytest.approx(0.614), "± 0.020", "", "")
    assert f"| 57.4 ± 1.2 ({NULL}) | 0.614 ± 0.020 | 5.5 | 0.005 |" in re.sub(
        " +", " ", text(*records)
    )


def test_the_figures_of_a_row_are_taken_once_and_not_averaged_over_seeds():
    scrub = rows(*references(), hit("scrub", 0), hit("scrub", 1)).loc[("plain", "scrub")]
    assert scrub["n_ok"] == 2
    assert scrub["ulira.privacy/acc"] == 0.574
    assert scrub["attack_shadows"] == 16
    assert scrub["attack_differing"] == ""
    assert not [name for name in scrub.index if "ulira" in name and name.endswith(("_mean", "_std"))
                and "null" not in name]  # fmt: skip


@pytest.mark.parametrize("turn", [1, -1])
def test_where_seeds_disagree_the_most_shadow_models_count(turn):
    few = hit("scrub", 0, figure=figures(0.52), attack={"shadows": 8}, sweep="other")
    many = hit("scrub", 1, figure=figures(0.6))
    records = [*references(), *[few, many][::turn]]
    scrub = rows(*records).loc[("plain", "scrub")]
    assert (scrub["ulira.privacy/acc"], scrub["attack_shadows"]) == (0.6, 16)
    (note,) = [note for note in notes(*records) if "disagree" in note]
    assert note.startswith("`scrub`: records disagree about the attack (shadow models: 8, 16)")


def test_of_equal_numbers_of_shadow_models_the_last_counts():
    records = [*references(), hit("scrub", 0, 0.55), hit("scrub", 1, 0.56)]
    assert rows(*records).loc[("plain", "scrub"), "ulira.privacy/acc"] == 0.56
    assert any("(shadow models: 16, 16)" in note for note in notes(*records))


def test_a_seed_without_figures_does_not_take_them_away():
    records = [
        *references(),
        hit("scrub", 0),
        hit("scrub", 1, figure={}, attack={"reason": "still running", "shadows": 64}),
        cell("scrub", 2),
    ]
    assert shown(*records)["U-LIRA % (null band)"].text == "57.4"
    assert build(records).tables[0].reasons == ()


SECONDARY = {
    "U-LIRA difference to original": (
        {"acc_vs_identity": -0.086, "acc_vs_identity_se": 0.005}, "-8.6", "± 1.0", ""),
    "U-LIRA difference to retrained": (
        {"acc_vs_retrain": 0.071, "acc_vs_retrain_se": 0.005}, "7.1", "± 1.0", ""),
    "U-LIRA p": ({}, "0.005", "", ""),
    "U-LIRA by example most exposed %": ({"ulira/per_example_p95": 0.8125}, "81.2", "", ""),
    "U-LIRA by example above original %": ({"ulira/share_above_identity": 0.25}, "25.0", "", ""),
    "U-LIRA TPR at 1 % FPR (real FPR)": (
        {"tpr_0.01": 0.042, "fpr_0.01": 0.0113}, "4.2", "", "1.1"),
    "U-LIRA efficacy % (null band)": (
        {"ulira.efficacy/acc": 0.75, "ulira.efficacy/se": 0.01, "ulira.efficacy/null_lo": 0.47,
         "ulira.efficacy/null_hi": 0.53}, "75.0", "± 2.0", f"47.0{DASH}53.0"),
    "U-LIRA efficacy AUC": (
        {"ulira.efficacy/auc": 0.8, "ulira.efficacy/auc_se": 0.01}, "0.800", "± 0.020", ""),
    "Streisand too low %": ({"low_share": 0.03}, "3.0", "", ""),
    "Streisand spread ratio": ({"spread_ratio": 1.234}, "1.23", "", ""),
    "retain privacy AUC change": (
        {"ulira.retain/auc_change": 0.012, "ulira.retain/auc_change_se": 0.001},
        "0.012", "± 0.002", ""),
    "population AUC": ({"mia.population/auc": 0.48}, "0.480", "", ""),
    "KLoM mean (floor)": ({"klom/mean": 3.456, "klom/floor_mean": 2.1}, "3.46", "", "2.10"),
    "KLoM median (floor)": ({"klom/median": 2, "klom/floor_median": 1}, "2.00", "", "1.00"),
    "KLoM 95 % (floor)": ({"klom/p95": 9, "klom/floor_p95": 4}, "9.00", "", "4.00"),
    "KLoM normal law (floor)": (
        {"klom_gauss/mean": 0.4, "klom_gauss/floor_mean": 0.1}, "0.40", "", "0.10"),
    "forgetting score F (ideal)": (
        {"forgetting_score/f": 0.031, "forgetting_score/null": 0.05}, "0.031", "", "0.050"),
}  # fmt: skip


@pytest.mark.parametrize(("head", "case"), SECONDARY.items(), ids=list(SECONDARY))
def test_a_column_stands_there_if_a_row_has_a_value_for_it(head, case):
    more, mean, spread, beside = case
    cells = shown(*references(), hit("scrub", figure=figures(0.574, **more)))
    assert cells[head][0] == mean
    assert cells[head][2:4] == (spread, beside)
    if more:
        assert head not in shown(*references(), hit("scrub"))


def test_attacks_on_one_model_are_means_over_seeds_beside_the_retrained_models():
    records = [
        hit(method, seed, figure={"mia_svc_efficacy": value})
        for method, values in (("retrain", (0.3, 0.5)), ("scrub", (0.1, 0.3)))
        for seed, value in enumerate(values)
    ]
    cells = shown(*records)
    assert cells["other MIA SVC efficacy % (retrained)"][:4] == (
        "20.0", pytest.approx(0.2), "± 14.1", "40.0",
    )  # fmt: skip
    assert "other MIA entropy % (retrained)" not in cells
    frame = build(records).frame()
    assert "mia_svc_efficacy_mean" in frame
    assert not [name for name in frame if name.startswith("mia_entropy")]


def test_csv_has_every_figure_under_its_own_name(tmp_path):
    more = {"ulira.efficacy/acc": 0.7, "mia.population/loss_auc": 0.6, "ulira/control_rise": -0.01}
    write_leaderboard([*references(), hit("scrub", figure=figures(0.574, **more))], tmp_path)
    frame = pd.read_csv(tmp_path / "leaderboard.csv", dtype=str).set_index("method")
    names = list(frame)
    assert names.index("ulira.privacy/acc") < names.index("forget_acc_mean")
    scrub = frame.loc["scrub"]
    for name, value in (figures(0.574) | more).items():
        assert float(scrub[name]) == value
    assert (scrub["attack_shadows"], scrub["attack_bank"]) == ("16", "b0")
    assert scrub["attack_validity"] == "ok"
    assert pd.isna(frame.loc["retrained, other seed", "ulira.privacy/acc"])


# --- without an attack ----------------------------------------------------------------------------


def test_records_without_an_attack_look_as_they_did_and_say_how_to_get_one(tmp_path):
    records = [cell("retrain"), cell("scrub", gap=0.1)]
    assert "U-LIRA was not run; add `--shadows 64`." in text(*records)
    assert "U-LIRA %" not in text(*records)
    table = terminal_table(records)
    assert "Not ranked: U-LIRA was not run; add `--shadows 64`." in table
    assert re.search(r"method +n +forget +gap +retain +gap +test +gap +unlearn s", table)
    frame = build(records).frame()
    assert not [name for name in frame if name.startswith(("attack", "ulira", "mia"))]
    assert {"forget, retain, test", "gap"} <= legend(build(records)).keys()
    assert "U-LIRA %" not in legend(build(records))


def test_a_table_without_an_attack_beside_one_with_it_says_so():
    records = [*references(), hit("scrub"), cell("scrub", scenario="random[fraction=0.1]")]
    board = build(records)
    assert attack_notes(board.tables[1], board) == ["U-LIRA was not run; add `--shadows 64`."]
    assert board.frame()["attack_validity"].notna().sum() == 4
    assert "± std over seeds" in " ".join(terminal_table(records).split())


# --- words ----------------------------------------------------------------------------------------


def test_the_page_says_how_methods_are_ranked():
    said = ranking(build([*references(), hit("scrub")]))
    assert "ranked within a table by how far U-LIRA" in said
    assert "methods inside the null band are tied" in said
    assert "comes last (↓)" in said
    assert said in text(*references(), hit("scrub"))


def test_where_the_controls_leave_nothing_to_rank_the_page_says_so():
    records = [*references(retrain=0.6), hit("scrub")]
    board = build(records)
    assert board.standings is None
    assert ranking(board).startswith("Rows are not ranked: methods stand in the order of the")
    said = "No method is ranked here: the retrained model lies far outside its null band."
    assert said in board.tables[0].notes
    assert said in " ".join(terminal_table(records).split())


def test_power_and_setting_stand_beside_the_number():
    said = notes(*references(), hit("scrub"))
    assert said == [
        "U-LIRA: 16 shadow models, 163 forgotten examples, 1 view, eb_t; with this many shadows a "
        "leak of half a standard deviation would read 57.8 %, unlimited ones 59.9 %."
    ]
    for shown_text in (text(*references(), hit("scrub")), terminal_table([*references()])):
        assert said[0] in " ".join(shown_text.split())


def test_rows_of_another_setting_are_named():
    small = hit("svd", figure=figures(0.5) | {"ulira/power_d0.5": 0.549}, attack={"shadows": 10})
    said = notes(*references(), hit("scrub"), small)
    assert said[0].startswith("U-LIRA (`original (identity)`, `retrained`, `scrub`): 16 shadow")
    assert said[1].startswith("U-LIRA (`svd`): 10 shadow models")
    assert "54.9 %" in said[1]


def test_power_that_no_record_holds_is_computed():
    figure = {k: v for k, v in figures(0.55).items() if "power" not in k}
    (said, *_) = notes(hit("scrub", figure=figure, attack={"shadows": 18}))
    assert "would read 56.5 %" in said  # eight a side, from the table of the specification


def test_facts_of_the_shadow_models_are_told_where_they_are_known():
    (_, said) = notes(*references(), hit("scrub"), banks=[BANK])
    assert said == (
        "The 16 shadow models of recipe plain: accuracy of a model 99.8 ± 0.1 % on the half that "
        "it was trained on, 93.4 ± 0.8 % on the other half; AUC of LiRA on them 0.731 ± 0.020; "
        "trained in 812 s."
    )
    assert said in text(*references(), hit("scrub"), banks=[BANK])
    assert said in " ".join(terminal_table([*references(), hit("scrub")], [BANK]).split())
    other = BANK.model_copy(update={"bank": "b1"})
    assert len(notes(*references(), hit("scrub"), banks=[other])) == 1


def test_every_group_of_the_attack_that_is_shown_is_explained():
    more = {name: value for numbers, *_ in SECONDARY.values() for name, value in numbers.items()}
    more |= {"mia_svc_efficacy": 0.5, "rmia/auc": 0.6, "rmia/auc_se": 0.01}
    board = build([*references(), hit("scrub", figure=figures(0.574, **more))])
    columns = columns_of(board.tables[0], board)
    unexplained = {column.group for column in columns if column.group} - legend(board).keys()
    assert unexplained == {"forget %", "retain %", "test %"}
    assert next(iter(legend(board))) == "U-LIRA %"


# --- controls -------------------------------------------------------------------------------------


def test_an_original_inside_its_null_band_makes_a_low_figure_say_nothing():
    records = [
        *references(identity=0.515, p=0.06),
        hit("scrub", figure=figures(0.51)),
        hit("svd", figure=figures(0.6)),
    ]
    (note,) = notes(*records)[1:]
    assert note.startswith("Nothing to forget can be seen: the original model itself lies inside")
    assert "(51.5 %, band 48.1 to 51.9 %, p = 0.06)" in note
    low = shown(*records)["U-LIRA % (null band)"]
    assert (low.text, low.mark, low.value) == ("51.0", "?", 0.51)
    # a leak is a leak, whatever the original shows
    assert shown(*records, method="svd")["U-LIRA % (null band)"].mark == ""
    assert rows(*records).loc[("plain", "scrub"), "attack_validity"] == "nothing to see"


@pytest.mark.parametrize(
    ("acc", "p"),
    [(0.522, "0.014"), (0.478, "0.014")],  # 2.2 standard deviations
    ids=["above", "below"],
)
def test_a_retrained_model_just_outside_its_band_is_noted_and_figures_count(acc, p):
    records = [*references(retrain=acc), hit("scrub")]
    (note,) = notes(*records)[1:]
    assert note.startswith("The retrained model lies outside its 95 % band")
    assert f"({100 * acc:.1f} %, band 48.1 to 51.9 %, p = {p})" in note
    assert "one table of twenty" in note
    assert shown(*records)["U-LIRA % (null band)"].mark == ""


@pytest.mark.parametrize("acc", [0.535, 0.465], ids=["above", "below"])  # 3.5 sd: 0.02 %
def test_a_retrained_model_far_outside_its_band_makes_no_figure_count(acc, tmp_path):
    records = [*references(retrain=acc), hit("scrub", figure=figures(0.5, **{"klom/mean": 2}))]
    (note,) = notes(*records)[1:]
    assert "the attack or the set-up is biased" in note
    assert "p = 0.00023" in note
    cells = shown(*records)
    for head in ("U-LIRA % (null band)", "U-LIRA AUC", "U-LIRA p"):
        assert cells[head].struck
        assert cells[head].value is None  # it cannot be sorted to the top
    assert not cells["KLoM mean (floor)"].struck
    assert shown(*records, method="retrained")["U-LIRA % (null band)"].struck
    assert f"~~50.0 ± 1.2~~ ✗ ({NULL})" in text(*records)
    assert "50.0±1.2✗" in terminal_table(records)


def test_controls_are_those_of_the_recipe():
    records = [
        *references(),
        hit("scrub"),
        *references(retrain=0.6, recipe="orthogonal"),
        hit("osp", recipe="orthogonal"),
    ]
    frame = rows(*records)
    assert frame.loc[("plain", "scrub"), "attack_validity"] == "ok"
    assert frame.loc[("orthogonal", "osp"), "attack_validity"] == "biased"
    (note,) = notes(*records)[1:]
    assert "95 % band on recipe orthogonal (60.0 %" in note
    assert "figures of this recipe do not count" in note


@pytest.mark.parametrize("turn", [1, -1])
@pytest.mark.parametrize("shadows", [8, 16, 32])
def test_controls_are_those_of_the_same_shadow_models(turn, shadows):
    one = [*references(), hit("scrub")]
    other = {"attack": {"bank": "other", "shadows": shadows}, "seed": 1}
    # biased, and the original shows nothing: neither says anything of the first shadow models
    two = [hit("identity", figure=figures(0.5), **other),
           hit("retrain", figure=figures(0.6), **other),
           hit("svd", figure=figures(0.5), **other)]  # fmt: skip
    records = [record for part in [one, two][::turn] for record in part]
    frame = rows(*records)
    assert frame.loc[("plain", "scrub"), "attack_validity"] == "ok"
    assert frame.loc[("plain", "scrub"), "place"] == 1
    assert frame.loc[("plain", "svd"), "attack_validity"] == "biased"
    assert math.isnan(frame.loc[("plain", "svd"), "place"])
    table = build(records).tables[0]
    assert table.notes[-1] == (
        "Methods on recipe plain with shadow models `other` are not ranked: the original model "
        "shows nothing to forget and the retrained model lies far outside its null band."
    )
    (seen,) = [note for note in notes(*records) if note.startswith("Nothing to forget")]
    assert "can be seen with shadow models `other`:" in seen
    (biased,) = [note for note in notes(*records) if "is biased" in note]
    assert "figures of these shadow models do not count" in biased
    assert "with shadow models `b0`" not in " ".join(notes(*records))


def test_shadow_models_without_controls_say_so():
    alone = hit("svd", attack={"bank": "other"})
    table = build([*references(), hit("scrub"), alone]).tables[0]
    assert list(table.rows.loc[table.rows["kind"] == "method", "place"].dropna()) == [1]
    assert table.notes[-1] == (
        "Methods on recipe plain with shadow models `other` are not ranked: neither the original "
        "nor the retrained model has a U-LIRA figure with a null band."
    )
    said = notes(*references(), hit("scrub"), alone)
    (note,) = [note for note in said if note.startswith("The retrained model has no U-LIRA")]
    assert "null band with shadow models `other`: whether" in note


def test_absent_controls_are_noted():
    said = notes(hit("scrub"))[1:]
    assert said == [
        "The original model has no U-LIRA figure with a null band: whether there is anything to "
        "find is not known.",
        "The retrained model has no U-LIRA figure with a null band: whether the attack is unbiased "
        "is not known.",
    ]
    assert shown(hit("scrub"))["U-LIRA % (null band)"].mark == ""


def test_a_figure_without_redraws_has_no_band():
    figure = {k: v for k, v in figures(0.55).items() if "null" not in k}
    cells = shown(hit("scrub", figure=figure))
    assert cells["U-LIRA % (null band)"][:4] == ("55.0", 0.55, "± 1.2", "")


# --- what does not count --------------------------------------------------------------------------


def test_a_suspicion_strikes_the_figures_of_its_row_only():
    why = "accuracy on examples that it must not see rose by 30 points."
    peeking = hit("peek", attack={"suspicion": why}, figure=figures(0.5, **{"klom/mean": 2}))
    records = [*references(), hit("scrub"), peeking]
    (note,) = notes(*records)[1:]
    assert note == f"`peek`: {why} Its figures do not count (✗)."
    cells = shown(*records, method="peek")
    assert cells["U-LIRA % (null band)"] == ("50.0", None, "± 1.2", NULL, "✗")
    assert cells["KLoM mean (floor)"].struck
    assert not cells["forget % (retrained)"].struck
    assert not shown(*records)["U-LIRA % (null band)"].struck


def test_why_there_is_no_figure_is_listed_with_the_reasons():
    none = {"attack": {"reason": "the attack\n failed on shadow 3"}, "figure": {}}
    records = [*references(), hit("scrub", 0, **none), hit("scrub", 1, **none), hit("svd", **none)]
    assert build(records).tables[0].reasons == (
        ("not attacked", "the attack failed on shadow 3",
         (("scrub", "plain", ()), ("svd", "plain", ()))),
    )  # fmt: skip
    assert shown(*records)["U-LIRA % (null band)"].text == DASH
    said = "no U-LIRA: scrub, svd: the attack failed on shadow 3"
    assert said in terminal_table(records)
    assert "no U-LIRA: `scrub`, `svd`: the attack failed on shadow 3" in text(*records)


def test_where_nothing_has_a_figure_the_first_column_is_empty_and_the_page_says_so():
    none = {"attack": {"reason": "the bank is incomplete"}, "figure": {}}
    records = [hit("retrain", **none), hit("scrub", **none)]
    assert shown(*records)["U-LIRA % (null band)"].text == DASH
    assert "gave no figure" in ranking(build(records))
    assert "the bank is incomplete" in terminal_table(records)


def test_with_few_shadow_models_rmia_stands_in():
    figure = {"rmia/auc": 0.612, "rmia/auc_se": 0.01}
    records = [hit(name, figure=figure, attack={"shadows": 4}) for name in ("identity", "scrub")]
    cells = shown(*records)
    assert cells["U-LIRA % (null band)"].text == DASH
    assert "U-LIRA AUC" not in cells
    assert cells["RMIA AUC"][:3] == ("0.612", 0.612, "± 0.020")
    (note,) = notes(*records)
    assert note.startswith("With fewer than 6 shadow models there is no U-LIRA. The AUC of RMIA")
    line = next(line for line in terminal_table(records).splitlines() if "scrub" in line)
    assert line.split()[:5] == ["scrub", "1/1°", DASH, DASH, "0.612±0.020"]


# --- the terminal ---------------------------------------------------------------------------------


def test_rows_stay_within_110_columns():
    wide = {"gap": 0.999, "times": {"unlearn_s": 12345.0, "speedup": 0.0123}}
    records = [
        *references(retrain=0.6, scenario="random[fraction=0.1]"),
        hit("neggrad-plus", forget=1.0, figure=figures(0.574, se=0.06),
            hyperparameters={"alpha": 0.123456789, "loss_cap": 12.5},
            scenario="random[fraction=0.1]", **wide),
        hit("neggrad-plus", 1, forget=1.0, figure=figures(0.574, se=0.06),
            hyperparameters={"alpha": 0.987654321, "loss_cap": 12.5},
            scenario="random[fraction=0.1]", **wide),
    ]  # fmt: skip
    lines = terminal_table(records).splitlines()
    assert max(map(len, lines)) <= 110
    heads = next(line for line in lines if line.startswith("method"))
    assert heads.split() == [
        "method", "n", "#", "U-LIRA", "band", "forget", "gap", "test", "gap", "seconds", "speed-up",
    ]  # fmt: skip
    assert any("57.4±11.8✗" in line and NULL in line for line in lines)


# --- the figure -----------------------------------------------------------------------------------


def draw_attack(table):
    with drawing_style():
        sketch = sketch_attack(table)
        return None if sketch is None else sketch.finished("test")


def test_the_figure_shows_the_rows_that_have_a_value():
    records = [*references(), hit("scrub"), hit("svd", figure={}, attack={"reason": "none"})]
    drawing = draw_attack(build(records).tables[0])
    assert drawing is not None
    assert "Original (identity): 66.0 %. Retrained: 50.3 %. Methods: 57.4 % (scrub)." in drawing.alt
    assert "scrub" in drawing.svg
    assert "svd" not in drawing.svg
    assert drawing.caption.endswith("Left out: svd (no U-LIRA).")
    assert "Crosses" not in drawing.caption
    assert draw_attack(build([cell("scrub")]).tables[0]) is None
    assert draw_attack(build([hit("scrub", figure={}, attack={"reason": "x"})]).tables[0]) is None


def test_the_figure_has_a_name_of_its_own_and_crosses_out_what_does_not_count(tmp_path):
    records = [*references(retrain=0.6), hit("scrub")]
    names = {path.name for path in write_leaderboard(records, tmp_path, [BANK])}
    assert {f"digits-resnet18-class-ulira.{kind}" for kind in ("svg", "png")} <= names
    assert "figures/digits-resnet18-class-ulira.svg" in (tmp_path / "leaderboard.md").read_text()
    drawing = draw_attack(build(records).tables[0])
    assert drawing is not None
    assert "Crosses do not count" in drawing.caption


def test_a_row_without_a_band_is_drawn_all_the_same():
    figure = {k: v for k, v in figures(0.55).items() if "null" not in k and "se" not in k}
    drawing = draw_attack(build([*references(), hit("scrub", figure=figure)]).tables[0])
    assert drawing is not None
    assert not math.isnan(len(drawing.png))
