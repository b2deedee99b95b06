"""The ranking over tasks: by hand, against brute force, and what may not change it."""

from __future__ import annotations

import json
import math
import time
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.pyplot import close
from scipy import stats

from unlearnbench.bench.attack_record import AttackRecord
from unlearnbench.bench.leaderboard import build
from unlearnbench.bench.leaderboard_json import leaderboard_json
from unlearnbench.bench.markdown import markdown
from unlearnbench.bench.metrics.clustering import pigeonhole_bootstrap, two_way_se
from unlearnbench.bench.metrics.ranking import nemenyi_difference
from unlearnbench.bench.paired import differences
from unlearnbench.bench.rank_figure import sketch_ranks
from unlearnbench.bench.rank_notes import distinguishable, standings_notes, told_apart
from unlearnbench.bench.rank_redraws import redrawn_excess
from unlearnbench.bench.standings import standings_of
from unlearnbench.bench.tablecell import NONE
from unlearnbench.bench.terminal import terminal_table

from .made_records import EXAMPLES, PAIRS, made_records
from .test_leaderboard import cell
from .test_leaderboard_attack import figures, hit, references

SCENARIOS = tuple(f"class[classes=[{c}]]" for c in range(6))
LEAKS = st.sampled_from([0.5, 0.51, 0.53, 0.55, 0.57])


def task_records(scenario, accs, *, failed=(), identity=0.66, **changes):
    """References and methods of one task; those in `failed` lose 30 points of test accuracy."""
    records = references(identity=identity, scenario=scenario, **changes)
    for name, acc in accs.items():
        made = hit(name, figure=figures(acc), scenario=scenario, **changes)
        if name in failed:
            made = made.model_copy(update={"metrics": made.metrics | {"test_acc": 0.5}})
        records.append(made)
    return records


def ranked(*tasks, attacks=()):
    records = [record for task in tasks for record in task]
    return build(records, (), attacks).standings


def by_name(standings):
    return {row.method: row for row in standings.rows}


# --- by hand --------------------------------------------------------------------------------------


def test_points_places_and_wins_of_two_tasks():
    one = task_records(SCENARIOS[0], {"a": 0.5, "b": 0.51, "c": 0.6})
    two = task_records(SCENARIOS[1], {"a": 0.56, "b": 0.5, "d": 0.5}, failed=["d"])
    found = by_name(ranked(one, two))
    # of 4 methods; first task a and b share 3 and 2 points, c has 1, d is missing; second task b 3,
    # a 2, d failed and is last, c is missing
    assert {name: row.borda for name, row in found.items()} == {"a": 4.5, "b": 5.5, "c": 1, "d": 0}
    assert {name: row.place for name, row in found.items()} == {"b": 1, "a": 2, "c": 3, "d": 4}
    assert found["c"].mean_rank == pytest.approx((3 + 4) / 2)
    assert (found["c"].tasks, found["c"].missing, found["c"].failed) == (1, 1, 0)
    assert (found["d"].tasks, found["d"].missing, found["d"].failed) == (1, 1, 1)
    # a: tie with b, ahead of c; behind b, ahead of d
    assert found["a"].win_rate == pytest.approx((0.5 + 1 + 0 + 1) / 4)
    wins = ranked(one, two).wins
    assert wins.loc["a", "b"] == 0.25
    assert wins.loc["b", "d"] == 1
    assert math.isnan(wins.loc["c", "d"])
    assert list(wins.index) == ["b", "a", "c", "d"]


def test_what_declines_or_has_no_figure_is_missing_and_all_failed_is_last():
    accs = {"a": 0.5, "b": 0.6}
    one = task_records(SCENARIOS[0], accs)
    declined = cell("c", scenario=SCENARIOS[0], status="skipped", reason="no")
    broken = cell("d", scenario=SCENARIOS[0], status="failed", reason="diverged")
    unscored = hit("e", figure={}, scenario=SCENARIOS[0], attack={"reason": "no"})
    found = by_name(ranked([*one, declined, broken, unscored]))
    assert set(found) == {"a", "b", "d"}  # the others have no place on any task
    assert (found["d"].place, found["d"].failed) == (3, 1)
    more = task_records(SCENARIOS[1], {"c": 0.5, "e": 0.5})
    both = by_name(ranked([*one, declined, broken, unscored], more))
    assert (both["c"].missing, both["e"].missing, both["d"].missing) == (1, 1, 1)


def test_gate_failures_share_the_last_place():
    found = by_name(ranked(task_records(SCENARIOS[0], dict.fromkeys("abc", 0.5), failed="bc")))
    assert [(found[n].place, found[n].tied) for n in "abc"] == [(1, False), (2, True), (2, True)]
    assert found["b"].mean_rank == 2.5


def test_tasks_that_rank_nothing_are_left_out_with_the_reason():
    good = task_records(SCENARIOS[0], {"a": 0.5, "b": 0.6})
    blind = task_records(SCENARIOS[1], {"a": 0.6, "b": 0.5}, identity=0.51)
    standings = ranked(good, blind, [cell("a", scenario=SCENARIOS[2])])
    assert standings.tasks == (f"digits · resnet18[stem=small] · {SCENARIOS[0]}",)
    assert [reason for _, reason in standings.left_out] == [
        "the original model shows nothing to forget", "U-LIRA was not run",
    ]  # fmt: skip
    assert by_name(standings)["a"].place == 1
    notes = " ".join(standings_notes(standings))
    assert f"Left out, for U-LIRA was not run: digits · resnet18[stem=small] · {SCENARIOS[2]}." in (
        notes
    )


@pytest.mark.parametrize(
    "records",
    [
        [],
        [cell("scrub")],
        [cell("scrub", status="failed", reason="no"), cell("svd", status="failed", reason="no")],
        references(),
        [hit("a", status="failed", reason="no", figure={}), *references()],
        task_records(SCENARIOS[0], {"a": 0.5}, failed=["a"]),
    ],
    ids=["nothing", "no attack", "all failed", "no method", "attacked, failed", "none passes"],
)
def test_where_nothing_can_be_ranked_there_are_no_standings(records):
    board = build(records)
    assert board.standings is None
    assert "Ranking over tasks" not in terminal_table(records)
    assert "anked" in markdown(board, [""] * len(board.tables), [[]] * len(board.tables))


def test_one_method_on_one_task():
    standings = ranked(task_records(SCENARIOS[0], {"a": 0.55}))
    (row,) = standings.rows
    assert (row.place, row.tied, row.borda, row.mean_rank) == (1, False, 0, 1)
    assert (row.rank_lo, row.rank_hi) == (1, 1)
    assert math.isnan(row.win_rate)
    assert math.isnan(standings.friedman_p)
    assert math.isnan(standings.critical_difference)
    assert standings.differences.empty
    assert distinguishable(standings) == ""


def test_recipes_and_variants_are_methods_of_their_own():
    one = task_records(SCENARIOS[0], {"a": 0.5})
    two = task_records(SCENARIOS[0], {"a": 0.6}, recipe="orthogonal")
    standings = ranked(one, two)
    assert [(row.method, row.recipe, row.place) for row in standings.rows] == [
        ("a", "plain", 1), ("a", "orthogonal", 2),
    ]  # fmt: skip
    assert list(standings.wins.index) == ["a (plain)", "a (orthogonal)"]


def test_a_method_tuned_for_each_task_is_one_method_and_variants_keep_their_names():
    tuned = [
        task_records(scenario, {"a": 0.5}, hyperparameters={"lr": lr})
        for scenario, lr in zip(SCENARIOS[:2], (0.1, 0.2), strict=True)
    ]
    (row,) = ranked(*tuned).rows
    assert (row.method, row.tasks) == ("a", 2)
    other = [hit("a", acc=0.6, scenario=SCENARIOS[0], hyperparameters={"lr": 0.2})]
    found = by_name(ranked(*tuned, other))
    assert {name: row.tasks for name, row in found.items()} == {"a[lr=0.1]": 1, "a[lr=0.2]": 2}


# --- what may not change it -----------------------------------------------------------------------


def equal(one, other):
    assert one.rows == other.rows
    assert (one.tasks, one.left_out) == (other.tasks, other.left_out)
    pd.testing.assert_frame_equal(one.wins, other.wins, check_exact=True)
    pd.testing.assert_frame_equal(one.differences, other.differences, check_exact=True)
    for name in ("friedman", "friedman_p", "critical_difference"):
        assert getattr(one, name) == getattr(other, name)


def test_permuting_records_changes_nothing_at_all():
    found = made_records(6, seeds=3, tasks=4, recipes=("plain", "orthogonal"))
    first = build(*found).standings
    rng = np.random.default_rng(0)
    for _ in range(3):
        mixed = [[part[i] for i in rng.permutation(len(part))] for part in found]
        equal(first, build(*mixed).standings)


def renamed(record, name, **changes):
    return record.model_copy(update={"method": name, "key": f"{name} {record.key}"} | changes)


@pytest.mark.parametrize("with_attacks", [True, False])
def test_a_copy_of_a_method_ties_with_itself(with_attacks):
    found = made_records(4, seeds=2, tasks=3)
    copies = [renamed(r, "copy") for r in found.records if r.method == "method-02"]
    board = build([*found.records, *copies], (), found.attacks if with_attacks else ())
    rows = by_name(board.standings)
    copy, original = rows["copy"], rows["method-02"]
    same = ("place", "borda", "mean_rank", "win_rate", "tasks")
    assert [getattr(copy, name) for name in same] == [getattr(original, name) for name in same]
    assert copy.tied
    assert original.tied
    assert board.standings.wins.loc["copy", "method-02"] == 0.5
    pairs = board.standings.differences.set_index(["method", "other"])
    between = pairs.loc[("copy", "method-02")]
    assert (between["difference"] == 0).all()
    assert (between["p"] == 1).all()
    if with_attacks:
        assert (between["se"] == 0).all()
        assert (copy.rank_lo, copy.rank_hi) == (original.rank_lo, original.rank_hi)


@settings(max_examples=12, deadline=None)
@given(st.lists(st.lists(LEAKS, min_size=3, max_size=3), min_size=1, max_size=3), st.data())
def test_a_worse_method_never_overtakes(leaks, data):
    tasks = []
    for scenario, accs in zip(SCENARIOS, leaks, strict=False):
        worse = data.draw(st.floats(min_value=0.001, max_value=0.1))
        named = dict(zip("abc", accs, strict=True)) | {"worse": max(0.52, accs[0] + worse)}
        tasks.append(task_records(scenario, named))
    standings = ranked(*tasks)
    found = by_name(standings)
    assert found["worse"].place > found["a"].place
    assert found["worse"].mean_rank > found["a"].mean_rank
    assert standings.wins.loc["worse", "a"] == 0


@settings(max_examples=12, deadline=None)
@given(st.lists(st.lists(LEAKS, min_size=4, max_size=4), min_size=1, max_size=3))
def test_one_more_that_is_last_everywhere_changes_no_order_of_the_others(leaks):
    """Each of the others gets one point more on every task; Borda promises no more than this."""
    accs = [dict(zip("abcd", values, strict=True)) for values in leaks]
    pairs = list(zip(SCENARIOS, accs, strict=False))
    before = by_name(ranked(*(task_records(s, of_task) for s, of_task in pairs)))
    with_last = [task_records(s, of_task | {"last": 0.9}) for s, of_task in pairs]
    after = by_name(ranked(*with_last))
    for name in "abcd":
        assert after[name].place == before[name].place
        assert after[name].borda == before[name].borda + len(pairs)
    assert after["last"].place == 5


# --- intervals and differences --------------------------------------------------------------------


def attack_of(key, hits, bank="b", pool="p"):
    """A record of an attack with these hits, in halves."""
    codes = np.round(2 * np.asarray(hits)).astype(np.uint8)
    # one of two scores is right for half a hit, both for a whole one
    inside = np.where(codes >= 1, 1.0, -1.0)
    outside = np.where(codes == 2, -1.0, 1.0)
    arrays = {"ids": np.arange(codes.shape[1]), "privacy.in_scores": inside,
              "privacy.out_scores": outside}  # fmt: skip
    return AttackRecord.of(key, bank, arrays).model_copy(update={"pool": pool})


def drawn_hits(rng, acc, spread=0.3, shape=(12, 50)):
    easy = rng.normal(0, spread, (1, shape[1])) + rng.normal(0, spread, (shape[0], 1))
    return [np.round(2 * np.clip(acc + easy + rng.normal(0, 0.3, shape), 0, 1)) / 2 for _ in "ab"]


def row_with(attack, high=0.0):
    return {"attack_scores": attack.key, "ulira.privacy/acc": float(attack.hit_matrix().mean()),
            "ulira.privacy/se": 0.02, "ulira.privacy/null_hi": high}  # fmt: skip


def test_differences_have_the_clustered_error_of_the_differences():
    rng = np.random.default_rng(0)
    hits = drawn_hits(rng, 0.6)
    one, other = attack_of("k1", hits[0]), attack_of("k2", hits[1])
    assert (one.hit_matrix() == hits[0]).all()
    stranger = attack_of("k3", hits[1], bank="another")
    attacks = {attack.key: attack for attack in (one, other, stranger)}
    rows = [row_with(attack) for attack in attacks.values()]
    found = differences("t", ["x", "y", "z"], rows, attacks).set_index(["method", "other"])
    paired = found.loc[("x", "y")]
    assert paired["difference"] == pytest.approx(hits[0].mean() - hits[1].mean())
    assert paired["se"] == pytest.approx(two_way_se(hits[0] - hits[1]))
    assert paired["p"] == pytest.approx(2 * stats.norm.sf(abs(paired["difference"]) / paired["se"]))
    assert paired["paired"]
    apart = found.loc[("x", "z")]
    assert not apart["paired"]
    assert apart["se"] == pytest.approx(math.hypot(0.02, 0.02))
    assert paired["se"] < apart["se"]  # both models and examples are the same
    by_hand = min(1, 3 * found["p"].min())
    assert found["p_holm"].min() == pytest.approx(by_hand)
    assert (found["p_holm"] >= found["p"]).all()


def test_differences_without_an_error_have_no_p_value():
    rows = [{"ulira.privacy/acc": 0.5}, {"ulira.privacy/acc": 0.6}]
    found = differences("t", ["x", "y"], rows, {})
    assert found[["se", "p", "p_holm"]].isna().all(axis=None)
    assert found["difference"].item() == pytest.approx(-0.1)


def test_redraws_have_the_clustered_error_and_are_paired():
    rng = np.random.default_rng(1)
    hits = drawn_hits(rng, 0.7)
    one, other = attack_of("k1", hits[0]), attack_of("k2", hits[1])
    attacks = {attack.key: attack for attack in (one, other)}
    drawn = redrawn_excess("t", ["x", "y"], [row_with(one), row_with(other)], attacks)
    # the band ends at 0, so that nothing is cut off
    assert drawn.std(0) == pytest.approx([two_way_se(h) for h in hits], rel=0.15)
    between = drawn[:, 0] - drawn[:, 1]
    apart = hits[0] - hits[1]
    slow = pigeonhole_bootstrap(lambda w: float((w * apart).sum() / w.sum()), apart.shape, seed=7)
    assert between.std() == pytest.approx(slow.std(), rel=0.1)
    # noise of single cells counts up to three times in this bootstrap, which errs on the wide side
    assert 1 <= between.std() / two_way_se(apart) <= math.sqrt(3)
    assert between.std() < drawn.std(0).min() / 1.5
    alone = redrawn_excess("t", ["x", "y"], [row_with(one), row_with(other)], {})
    assert alone.std(0) == pytest.approx([0.02, 0.02], rel=0.1)
    assert abs(np.corrcoef(alone.T)[0, 1]) < 0.15


def test_ranks_of_one_task_spread_as_a_brute_force_bootstrap_says():
    found = made_records(4, seeds=1, tasks=1)
    standings = build(*found).standings
    matrices = {a.key.split()[-1]: a.hit_matrix() for a in found.attacks}
    names = [f"method-{i:02}" for i in range(4)]
    rng = np.random.default_rng(5)
    ranks = []
    for _ in range(1500):
        pairs, examples = rng.integers(0, PAIRS, PAIRS), rng.integers(0, EXAMPLES, EXAMPLES)
        accs = [matrices[name][np.ix_(pairs, examples)].mean() for name in names]
        ranks.append(stats.rankdata([max(0, round(acc - 0.54, 9)) for acc in accs]))
    low, high = np.quantile(ranks, (0.025, 0.975), axis=0)
    for name, lo, hi in zip(names, low, high, strict=True):
        row = by_name(standings)[name]
        assert (row.rank_lo, row.rank_hi) == pytest.approx((lo, hi), abs=0.5)
    assert max(high - low) > 0


def test_an_interval_holds_its_mean_rank_and_shrinks_with_tasks():
    few = build(*made_records(5, seeds=1, tasks=2)).standings
    many = build(*made_records(5, seeds=1, tasks=20)).standings
    widths = []
    for standings in (few, many):
        for row in standings.rows:
            assert 1 <= row.rank_lo <= row.mean_rank <= row.rank_hi <= 5
        widths.append(sum(row.rank_hi - row.rank_lo for row in standings.rows))
    assert widths[1] < widths[0]


def test_intervals_over_many_tasks_lie_around_the_mean_rank():
    standings = build(*made_records(6, seeds=1, tasks=20)).standings
    moving = [row for row in standings.rows if row.rank_hi - row.rank_lo > 0.3]
    assert len(moving) >= 3
    for row in moving:
        share = (row.mean_rank - row.rank_lo) / (row.rank_hi - row.rank_lo)
        assert 0.3 < share < 0.7


def test_intervals_hold_the_true_mean_rank_as_often_as_they_say():
    """Methods whose leaks are known, attacked again and again; errors by the normal law."""
    rng = np.random.default_rng(0)
    leaks, sd, repeats = np.array([0.51, 0.525, 0.55]), 0.012, 40

    def accs(tasks):
        return leaks + rng.normal(0, 0.01, (tasks, 3)) + rng.normal(0, sd, (tasks, 3))

    truth = stats.rankdata(np.maximum(accs(50_000) - 0.519, 0), axis=1).mean(0)
    held = np.zeros(3)
    for _ in range(repeats):
        tables = [
            SimpleNamespace(title=f"task {number}", unranked="", rows=pd.DataFrame({
                "recipe": "plain", "method": list("abc"), "place": 1.0, "gate": "pass",
                "excess": np.maximum(row - 0.519, 0), "ulira.privacy/acc": row,
                "ulira.privacy/se": sd, "ulira.privacy/null_hi": 0.519, "attack_validity": "ok",
            }))
            for number, row in enumerate(accs(5))
        ]  # fmt: skip
        found = by_name(standings_of(tables))
        held += [
            found[n].rank_lo <= t <= found[n].rank_hi for n, t in zip("abc", truth, strict=True)
        ]
    assert (held / repeats >= 0.95).all()


# --- distinguishable? -----------------------------------------------------------------------------


def test_friedman_and_nemenyi_are_of_the_methods_with_a_place_on_every_task():
    accs = {"a": 0.53, "b": 0.55, "c": 0.57}
    tasks = [task_records(s, accs | ({"d": 0.6} if s == SCENARIOS[0] else {})) for s in SCENARIOS]
    standings = ranked(*tasks)
    assert standings.compared == ("a", "b", "c")
    # one order of three on six tasks: n (k - 1)
    assert standings.friedman == pytest.approx(12)
    assert standings.friedman_p == pytest.approx(math.exp(-6))
    said = distinguishable(standings)
    assert said.startswith("Ranks distinguish the 3 methods with a place on every task")
    # the mean ranks shown are among four methods
    assert math.isnan(standings.critical_difference)
    assert "Nemenyi" not in said
    sketch = sketch_ranks(standings)
    assert "Nemenyi" not in sketch.caption
    assert "critical difference" not in [text.get_text() for text in sketch.figure.axes[0].texts]
    told = json.loads(leaderboard_json(build([r for task in tasks for r in task])))["standings"]
    assert (told["compared"], told["critical_difference"]) == (["a", "b", "c"], None)

    whole = ranked(*(task_records(s, accs) for s in SCENARIOS))
    assert whole.critical_difference == pytest.approx(nemenyi_difference(3, 6))
    assert "1.35 or more apart" in distinguishable(whole)  # 2.3437 * sqrt(3 * 4 / 36)
    assert "differ by less than 1.4 (critical difference of Nemenyi" in sketch_ranks(whole).caption
    close("all")
    same = ranked(*(task_records(s, dict.fromkeys("ab", 0.5)) for s in SCENARIOS))
    assert same.friedman_p == 1
    assert distinguishable(same).startswith("Ranks do not distinguish the 2 methods")


def test_a_table_says_which_pairs_differ():
    found = made_records(3, seeds=1, tasks=1)
    board = build(*found)
    (said,) = told_apart(board.tables[0], board)
    count = int((board.standings.differences["p_holm"] < 0.05).sum())
    assert said.startswith(f"U-LIRA tells {count} of 3 pairs of methods apart at 5 % (paired")
    assert len(board.standings.differences) == len(list(combinations(range(3), 2)))


# --- shown ----------------------------------------------------------------------------------------


def test_the_ranking_over_tasks_is_shown_where_more_than_one_counts():
    tasks = [task_records(s, {"a": 0.5, "b": 0.5, "c": 0.6}) for s in SCENARIOS[:2]]
    records = [record for task in tasks for record in task]
    board = build(records)
    text = markdown(board, ["", ""], [[], []])
    assert text.index("## Ranking over tasks") < text.index("## `class[classes=[0]]`")
    squeezed = [" ".join(line.split()) for line in text.splitlines()]
    assert any(line.startswith("| a | =1 | 3 | 1.50 (") for line in squeezed)
    assert f"| 1. a | {NONE} | 50 | 100 |" in squeezed
    terminal = terminal_table(records)
    assert "Ranking over tasks" in terminal
    assert max(map(len, terminal.splitlines())) <= 110
    only = build(tasks[0])
    assert "Ranking over tasks" not in markdown(only, [""], [[]])
    assert "Ranking over tasks" not in terminal_table(tasks[0])


def test_csv_has_place_gate_and_excess():
    board = build(task_records(SCENARIOS[0], {"a": 0.5, "b": 0.6, "c": 0.5}, failed="c"))
    frame = board.frame().set_index("method")
    assert frame["place"].dropna().to_dict() == {"a": 1, "b": 2, "c": 3}
    assert frame.loc["b", "excess"] == pytest.approx(0.6 - 0.519)
    assert str(frame["place"].dtype) == "Int64"
    assert list(frame["gate"][3:]) == ["pass", "pass", "fail"]


@pytest.mark.slow
def test_ten_thousand_records_rank_in_seconds():
    found = made_records(23, seeds=4, tasks=100)
    assert len(found.records) == 10_000
    before = time.process_time()
    standings = build(*found).standings
    assert time.process_time() - before < 40  # 7 s on a machine of today
    assert len(standings.rows) == 23
    assert len(standings.differences) == 100 * 23 * 22 / 2
