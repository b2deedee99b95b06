"""Rows that moved beyond noise: every expected number is worked out in the test."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from unlearnbench.bench.attack_record import AttackRecord
from unlearnbench.bench.comparison import Comparison
from unlearnbench.bench.diff import compare
from unlearnbench.bench.diff_table import diff_table
from unlearnbench.bench.metrics.clustering import two_way_se
from unlearnbench.bench.noise import difference_of_means, judged
from unlearnbench.bench.record import Record
from unlearnbench.bench.sweep_records import SweepRecords, write_folder

from .commands import call
from .made_records import made_records


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def changed(record, **changes):
    return Record.model_validate(record.model_dump(by_alias=True) | changes)


def side(records, attacks=()):
    return SweepRecords(list(records), [], list(attacks))


def cells(values, method="scrub", first_seed=0, **changes):
    """A cell for each forget accuracy."""
    template = made_records(methods=1, seeds=1, attacked=False).records[-1]
    records = []
    for seed, value in enumerate(values, start=first_seed):
        metrics = {"forget_acc": value, "retain_acc": 0.9, "test_acc": 0.8}
        fields = {
            "method": method, "seed": seed, "key": f"{method} {seed}", "metrics": metrics,
            "times": {"unlearn_s": 2.0}, "hyperparameters": {"lr": 0.1},
        }  # fmt: skip
        records.append(changed(template, **fields | changes))
    return records


def compared(old, new, quantity="forget_acc"):
    found = compare(side(old), side(new))
    (row,) = found.rows
    (number,) = [c for c in row.compared if c.quantity == quantity]
    return number


# --- noise over seeds --------------------------------------------------------------------------


def test_with_the_same_seeds_a_difference_is_paired():
    number = compared(cells([0.1, 0.5, 0.9]), cells([0.11, 0.52, 0.93]))
    assert number.how == "paired"
    assert number.difference == pytest.approx(0.02)
    assert number.se == pytest.approx(0.01 / math.sqrt(3))  # the three differ by .01, .02, .03
    assert number.dof == 2
    assert number.p == pytest.approx(1 - math.sqrt(12 / 14))  # t = sqrt(12), 2 degrees: closed form
    assert number.verdict == "within noise"  # 7 %, though beyond 3 standard errors


def test_with_other_seeds_it_is_welch_s():
    number = compared(cells([0.1, 0.2, 0.3]), cells([0.2, 0.4], first_seed=5))
    assert number.how == "apart"
    assert number.difference == pytest.approx(0.1)
    a, b = 0.01 / 3, 0.02 / 2
    assert number.se == pytest.approx(math.sqrt(a + b))
    assert number.dof == pytest.approx((a + b) ** 2 / (a**2 / 2 + b**2 / 1))
    assert number.verdict == "within noise"


@pytest.mark.parametrize(
    ("old", "new", "first_seed", "how", "difference"),
    [
        ([0.1, 0.2, 0.9], [0.2, 0.9], 1, "paired", 0.0),  # seeds 1 and 2 are the same
        ([0.1, 0.9], [0.1], 0, "paired", 0.0),  # seed 1 failed: seed 0 has not changed
        ([0.1, 0.2], [0.4, 0.6], 1, "apart", 0.35),  # a single common seed tells no noise
        ([0.1], [0.4, 0.6], 1, "apart", 0.4),
    ],
)
def test_seeds_that_both_sides_have_are_compared(old, new, first_seed, how, difference):
    number = compared(cells(old), cells(new, first_seed=first_seed))
    assert (number.how, number.difference) == (how, pytest.approx(difference))
    assert number.new - number.old == pytest.approx(difference)


def test_other_forget_sets_are_not_paired():
    number = compared(cells([0.1, 0.5]), cells([0.11, 0.51], forget_request="another"))
    assert number.how == "apart"


@pytest.mark.parametrize(
    ("new", "verdict"),
    [
        ([0.2, 0.4], "within noise"),  # equal
        ([0.202, 0.402], "within noise"),  # both alike, but below half a point
        ([0.21, 0.41], "moved"),  # both alike: no noise at all
        ([0.22, 0.43], "within noise"),  # 5 standard errors of 2 seeds: 13 % by chance
        ([0.201, 0.4035], "within noise"),  # 2.25 ± 1.25 points in a thousand
        ([0.203, 0.4032], "within noise"),  # beyond 2 errors, but below half a point
        ([0.207, 0.4072], "moved"),
        ([0.1, 0.6], "within noise"),
    ],
)
def test_moved_is_beyond_chance_and_half_a_point(new, verdict):
    assert compared(cells([0.2, 0.4]), cells(new)).verdict == verdict


def test_one_seed_cannot_be_judged_and_it_is_said():
    found = compare(side(cells([0.2])), side(cells([0.9])))
    (number,) = [c for c in found.rows[0].compared if c.quantity == "forget_acc"]
    assert (number.verdict, number.se) == ("not judged", None)
    assert not found.worth_a_look
    assert "one seed tells nothing about noise" in diff_table(found)
    same = compare(side(cells([0.2])), side(cells([0.2])))
    assert {c.verdict for c in same.rows[0].compared} == {"within noise"}


@pytest.mark.parametrize("seeds", [2, 3, 20])
def test_one_number_moves_by_chance_in_one_of_twenty(seeds):
    rng = np.random.default_rng(0)
    moved = 0
    for _ in range(400):
        old, new = ([((s, ""), v) for s, v in enumerate(rng.normal(0, 1, seeds))] for _ in "ab")
        number = judged("forget_acc", 0.0, 0.0, *difference_of_means(old, new))
        moved += number.verdict == "moved"
    assert 7 <= moved <= 33  # 20 expected, 3 standard deviations of 4.4


def test_of_many_numbers_that_are_noise_none_moves_and_a_real_change_does():
    rng = np.random.default_rng(0)

    def rows(shift):
        made = [cells(rng.normal(0.5, 0.02, 4), f"method-{n}") for n in range(40)]
        changed_one = cells(0.3 + shift + rng.normal(0, 1e-4, 4), "changed")
        return [*changed_one, *(cell for row in made for cell in row)]

    found = compare(side(rows(0.0)), side(rows(0.1)))
    numbers = [c for row in found.rows for c in row.compared if c.p is not None]
    assert len(numbers) == 41  # what is the same on both sides is not tested
    assert sum(c.p < 0.05 for c in numbers) > 1  # some would move if each stood alone
    moved = {row.method for row in found.rows for c in row.compared if c.verdict == "moved"}
    assert moved == {"changed"}
    least = min(numbers, key=lambda c: c.p)
    assert least.p_holm == pytest.approx(41 * least.p)


# --- the attack --------------------------------------------------------------------------------


def attacked(hits, key, bank="bank", pool="pool", **changes):
    """A row whose attack made these calls, with its record."""
    codes = (2 * np.asarray(hits)).astype(np.uint8)
    ids = np.arange(codes.shape[1])
    inside, outside = np.where(codes > 0, 1.0, -1.0), np.where(codes > 1, -1.0, 1.0)
    record = AttackRecord.of(
        key, bank, {"ids": ids, "privacy.in_scores": inside, "privacy.out_scores": outside}
    )
    record = AttackRecord.model_validate(record.model_dump(by_alias=True) | {"pool": pool})
    assert np.array_equal(record.hit_matrix(), hits)
    (cell,) = cells([0.2])
    metrics = cell.metrics | {
        "ulira.privacy/acc": float(np.mean(hits)), "ulira.privacy/se": 0.03,
    }  # fmt: skip
    attack = {"scores": key, "bank": bank, "shadows": 2 * len(hits)} | changes
    return changed(cell, metrics=metrics, attack=attack), record


def made_hits(rng, leak):
    return (rng.random((8, 30)) < 0.5 + leak).astype(float)


def of_attack(old, new):
    found = compare(side([old[0]], [old[1]]), side([new[0]], [new[1]]))
    numbers = [c for c in found.rows[0].compared if c.quantity == "ulira.privacy/acc"]
    return numbers[0] if numbers else None


def test_attacks_on_the_same_models_and_examples_are_paired_and_clustered():
    rng = np.random.default_rng(1)
    a = made_hits(rng, 0.0)
    b = np.where(rng.random(a.shape) < 0.2, 1.0, a)
    number = of_attack(attacked(a, "one"), attacked(b, "two"))
    assert number.how == "paired"
    assert number.difference == pytest.approx(b.mean() - a.mean())
    assert number.se == pytest.approx(two_way_se(b - a))
    assert number.se < math.hypot(0.03, 0.03)
    assert number.verdict == "moved"


def test_the_same_attack_again_has_not_moved():
    a = made_hits(np.random.default_rng(1), 0.1)
    number = of_attack(attacked(a, "one"), attacked(a, "one"))
    assert (number.difference, number.se, number.verdict) == (0, 0, "within noise")


@pytest.mark.parametrize("other", [{"bank": "another"}, {"pool": "another"}])
def test_attacks_on_other_models_or_examples_have_the_error_of_both(other):
    rng = np.random.default_rng(1)
    a, b = made_hits(rng, 0.0), made_hits(rng, 0.0)
    number = of_attack(attacked(a, "one"), attacked(b, "two", **other))
    assert number.how == "apart"
    assert number.se == pytest.approx(math.sqrt(2) * 0.03)
    assert number.difference == pytest.approx(b.mean() - a.mean())
    assert number.verdict == "within noise"


def test_figures_that_do_not_count_are_not_compared():
    a = made_hits(np.random.default_rng(1), 0.1)
    void = attacked(a, "two", suspicion="it looked")
    assert of_attack(attacked(a, "one"), void) is None


@pytest.mark.parametrize("biased", ["old", "new", "neither"])
def test_figures_of_a_table_whose_retrained_model_is_biased_are_not_compared(biased):
    found = made_records(methods=2)
    far = {"ulira.privacy/acc": 0.7}  # 10 standard deviations outside its band
    records = [
        changed(r, metrics=r.metrics | far) if r.method == "retrain" else r for r in found.records
    ]
    sides = {"old": found, "new": found}
    if biased != "neither":
        sides[biased] = found._replace(records=records)
    rows = compare(sides["old"], sides["new"]).rows
    told = [row.method for row in rows for c in row.compared if c.quantity == "ulira.privacy/acc"]
    assert len(rows) == 4
    assert len(told) == (4 if biased == "neither" else 0)


# --- seconds -----------------------------------------------------------------------------------


def timed(*seconds, hardware="one"):
    return [
        changed(cell, times={"unlearn_s": s}, environment={"hardware": hardware})
        for cell, s in zip(cells([0.2] * len(seconds)), seconds, strict=True)
    ]


def test_seconds_are_a_ratio():
    number = compared(timed(1.0, 2.0), timed(1.5, 3.1), "unlearn_s")
    logs = [math.log(1.5), math.log(1.55)]
    assert number.difference == pytest.approx(math.exp(sum(logs) / 2))
    assert number.se == pytest.approx(abs(logs[1] - logs[0]) / 2)
    assert number.verdict == "moved"  # t = 25.7 with 1 degree of freedom: 2.5 %


@pytest.mark.parametrize("new", [(1.1, 2.2), (1.1, 2.1)])
def test_a_tenth_more_seconds_is_noise(new):
    assert compared(timed(1.0, 2.0), timed(*new), "unlearn_s").verdict == "within noise"


def test_less_than_a_millisecond_is_noise():
    number = compared(timed(0.0001, 0.0001), timed(0.0004, 0.0005), "unlearn_s")
    assert number.verdict == "within noise"


def test_seconds_of_other_machines_are_not_compared():
    found = compare(side(timed(1.0, 2.0)), side(timed(9.0, 9.0, hardware="two")))
    assert "unlearn_s" not in {c.quantity for c in found.rows[0].compared}
    assert not found.worth_a_look
    (note,) = found.notes
    assert note == (
        "hardware differs: one before, two after; times are compared on the same machine only."
    )


# --- which rows --------------------------------------------------------------------------------


def test_rows_come_and_go():
    old, new = [*cells([0.1]), *cells([0.2], "svd")], [*cells([0.1]), *cells([0.2], "osp")]
    found = compare(side(old), side(new))
    assert [row.method for row in found.rows] == ["scrub"]
    assert [(r.method, r.status) for r in found.vanished] == [("svd", "1 ok")]
    assert [(r.method, r.status) for r in found.appeared] == [("osp", "1 ok")]
    assert found.worth_a_look
    assert not compare(side(cells([0.1])), side(new)).worth_a_look  # something more is no harm


def test_failures_in_both_directions():
    ok = cells([0.1, 0.2])
    bad = [changed(r, status="failed", reason="diverged", metrics={}, times={}) for r in ok]
    worse = compare(side(ok), side([ok[0], bad[1]]))
    assert (worse.rows[0].newly_failed, worse.rows[0].mended) == ([1], [])
    assert worse.worth_a_look
    better = compare(side([ok[0], bad[1]]), side(ok))
    assert (better.rows[0].newly_failed, better.rows[0].mended) == ([], [1])
    assert not better.worth_a_look
    assert "No longer ok" in diff_table(worse)
    assert "Ok again" in diff_table(better)
    nothing = compare(side(bad), side(bad))
    assert nothing.rows[0].compared == []
    assert not nothing.worth_a_look


def test_variants_are_told_apart_by_their_parameters():
    def variants(low, high):
        return [
            *cells(low, hyperparameters={"lr": 0.1}),
            *[changed(r, key=f"{r.key}b") for r in cells(high, hyperparameters={"lr": 0.9})],
        ]

    found = compare(side(variants([0.1, 0.1], [0.5, 0.5])), side(variants([0.1, 0.1], [0.9, 0.9])))
    moved = {row.method for row in found.rows for c in row.compared if c.verdict == "moved"}
    assert moved == {"scrub[lr=0.9]"}


def test_the_only_row_of_a_method_is_matched_in_spite_of_other_settings():
    new = cells([0.1], hyperparameters={"lr": 0.2, "clip": 1}, training={"epochs": 9})
    (row,) = compare(side(cells([0.1])), side(new)).rows
    assert row.settings == "lr 0.1 -> 0.2, clip unknown -> 1, epochs unknown -> 9"


def test_other_images_are_told():
    found = compare(side(cells([0.1], data_digest="a")), side(cells([0.1], data_digest="b")))
    assert found.notes == [
        "The images of dataset `digits` are not the same in both: what moved may be due to that."
    ]


def test_references_are_compared_too():
    found = made_records(methods=1)
    names = [row.method for row in compare(found, found).rows]
    assert names == ["original (identity)", "retrained", "method-00"]


def test_the_order_of_records_does_not_matter():
    found = made_records(methods=3, tasks=2, recipes=("plain", "orthogonal"))
    other = SweepRecords(found.records[::-1], found.banks, found.attacks[::-1])
    rows = compare(found, other).rows
    assert {c.verdict for row in rows for c in row.compared} == {"within noise"}
    assert len(rows) == 2 * 2 * 5


# --- the command -------------------------------------------------------------------------------


def written(name, records, attacks=()):
    write_folder(Path(name), side(records, attacks))


def test_nothing_moved_is_0(here):
    found = made_records(methods=2)
    written("a", found.records, found.attacks)
    written("b", found.records, found.attacks)
    result = call("diff", "a", "b")
    assert result.exit_code == 0
    assert "4 rows in both" in result.stdout
    assert "0 rows moved, 0 vanished, 0 appeared." in result.stdout
    assert "Moved beyond noise" not in result.stdout
    text = " ".join(result.stdout.split())
    assert "more than 0.5 percentage points (seconds: 20 %), and its two-sided p-value" in text
    assert "below 5% after Holm's correction for the 0 numbers that have one" in text


def test_something_moved_is_1_with_a_table_and_a_file(here):
    written("a", cells([0.10, 0.12]))
    written("b", cells([0.40, 0.42]))
    result = call("diff", "a", "b", "--json", "moved.json")
    assert result.exit_code == 1
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("scrub")]
    assert re.split(r"\s{2,}", line) == ["scrub", "forget %", "11.0", "41.0", "+30.00", "0.00",
                                         "paired"]  # fmt: skip
    read = Comparison.model_validate_json(Path("moved.json").read_text())
    assert read.worth_a_look
    assert json.loads(Path("moved.json").read_text())["schema"] == "unlearnbench.diff/1"
    first = Path("moved.json").read_bytes()
    call("diff", "a", "b", "--json", "moved.json")
    assert Path("moved.json").read_bytes() == first


def test_few_seeds_are_told_to_be_few_and_no_number_of_seeds_is_guessed(here):
    written("a", cells([0.10, 0.12, 0.3]))
    written("b", cells([0.11, 0.125], first_seed=7))  # degrees of freedom of Welch
    text = " ".join(call("diff", "a", "b").stdout.split())
    assert "With few seeds only large changes are found." in text
    assert not re.search(r"With \d+ seeds", text)


def test_specials_in_a_name_do_no_harm(here):
    written("a", cells([0.1, 0.1], method="<b>a|b_c</b>"))
    written("b", cells([0.2, 0.2], method="<b>a|b_c</b>"))
    assert "<b>a|b_c</b>" in call("diff", "a", "b").stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("a", "a"), "are the same folder"),
        (("a", "absent"), "there are no records at `absent`"),
        (("a", "empty"), "`empty/records.jsonl` holds no records."),
        (("junk", "a"), "line 1 is not a valid record"),
        (("a", "b", "--json", "a"), "`a` cannot be written"),
    ],
)
def test_bad_input_is_2(here, args, said):
    written("a", cells([0.1]))
    written("b", cells([0.1]))
    for name, content in {"empty": "", "junk": "{"}.items():
        Path(name).mkdir()
        (Path(name) / "records.jsonl").write_text(content)
    result = call("diff", *args)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert said in line


def test_help_tells_the_exit_codes():
    text = " ".join(call("diff", "--help").stdout.split())
    assert "is below 5 % after Holm's correction for all numbers compared." in text
    assert "Exit code 0: nothing moved; 1: something moved, is gone or newly fails; 2:" in text
