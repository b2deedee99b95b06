"""The rules of a report's verdict, one by one, and what stands against it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from unlearnbench.bench.cell_evidence import gather
from unlearnbench.bench.verdict import RULES, allowed_gap, judge, power_of, reservations

from .report_cases import cell, figures, of, task


def judged(found, method="scrub"):
    return judge(gather(of(found, method), found))


def only_scrub(found, **changes):
    """The records with other content of scrub."""
    made = [r.model_copy(update=changes) if r.method == "scrub" else r for r in found.records]
    return found._replace(records=made)


def test_above_the_band_a_leak_was_found():
    verdict = judged(task(0.537))
    assert verdict.kind == "leak"
    assert verdict.line == "A leak was found."
    assert "right in 53.7 % of cases" in verdict.why
    assert "between 46.9 and 52.6 % in 95 of 100 cases" in verdict.why
    assert RULES[verdict.rule - 1].endswith("a leak was found.")


def test_on_the_edge_of_the_band_is_inside():
    assert judged(task(0.526)).kind == "no leak"
    assert judged(task(0.469)).kind == "no leak"
    assert judged(task(0.5261)).kind == "leak"
    assert judged(task(0.4689)).kind == "not known"


def test_inside_the_band_no_leak_was_found_that_so_many_shadow_models_can_find():
    verdict = judged(task(0.51))
    assert verdict.line == "No leak was found that 16 shadow models can find."
    assert not verdict.but
    assert "On the original model it was right in 66.0 %" in verdict.why
    # half a standard deviation reads 56.2 % with 16 models, which is above the band
    assert "would have read about 56.2 %, and so would mostly have been found" in verdict.why
    assert verdict.rule == len(RULES)


def test_a_band_that_hides_the_leak_that_is_looked_for_is_said():
    found = task(0.51)
    metrics = of(found).metrics | {"ulira.privacy/null_hi": 0.57}
    verdict = judged(only_scrub(found, metrics=metrics))
    assert verdict.kind == "no leak"
    assert "about 56.2 %, and so would have been missed" in verdict.why


def test_below_the_band_is_no_good_news():
    verdict = judged(task(0.4))
    assert (verdict.kind, verdict.rule) == ("not known", 7)
    assert "does worse than guessing" in verdict.line


@pytest.mark.parametrize(
    ("status", "reason", "line"),
    [
        ("failed", "it diverged in\nepoch 3", "Not known: unlearning failed."),
        ("skipped", "forgets whole classes only",
         "Not known: the method does not serve this request."),
    ],
)  # fmt: skip
def test_a_cell_that_is_not_ok_makes_no_claim(status, reason, line):
    verdict = judged(task(status=status, reason=reason))
    assert (verdict.kind, verdict.line, verdict.rule) == ("not known", line, 1)
    assert verdict.why == f"{reason[:1].upper()}{' '.join(reason[1:].split())}."


def test_without_an_attack_nothing_is_known():
    verdict = judged(task(None, None, None))
    assert (verdict.line, verdict.rule) == ("Not known: no attack was made.", 2)
    assert "Accuracies alone do not show" in verdict.why
    assert "`--shadows 64`" in verdict.why
    checkpoint = judged(task(None, None, None, training={"epochs": 0}))
    assert "--shadows" not in checkpoint.why
    assert "nothing was (0 epochs)" in checkpoint.why


def test_an_attack_that_failed_says_why():
    found = task(None)
    attack = {"bank": "b0", "reason": "a shadow model diverged"}
    verdict = judged(only_scrub(found, attack=attack))
    assert (verdict.line, verdict.rule) == ("Not known: the attack gave no figure.", 2)
    assert verdict.why == "A shadow model diverged."


def test_too_few_shadow_models_are_no_verdict_whatever_the_weaker_attack_says():
    found = task(None, None, None)
    metrics = of(found).metrics | {"rmia/auc": 0.93, "rmia/auc_se": 0.01}
    verdict = judged(only_scrub(found, metrics=metrics, attack={"shadows": 4, "bank": "b0"}))
    assert verdict.line == "Not known: 4 shadow models are too few."
    assert "0.930 ± 0.020" in verdict.why
    assert verdict.rule == 2


def test_a_method_that_peeked_makes_no_claim():
    attack = of(task()).attack | {"suspicion": "the accuracy on the controls rose"}
    verdict = judged(only_scrub(task(0.5), attack=attack))
    assert (verdict.kind, verdict.rule) == ("not known", 3)
    assert verdict.why == "The accuracy on the controls rose."


@pytest.mark.parametrize("scrub", [0.5, 0.6])
def test_a_biased_control_voids_every_figure(scrub):
    verdict = judged(task(scrub, retrain=0.6))  # 6.7 standard deviations
    assert (verdict.line, verdict.rule) == ("Not known: the attack failed its own check.", 4)
    assert "right in 60.0 % of cases" in verdict.why


@pytest.mark.parametrize("scrub", [0.5, 0.6])
def test_without_the_retrained_control_nothing_is_known(scrub):
    verdict = judged(task(scrub, retrain=None))
    assert (verdict.kind, verdict.rule) == ("not known", 4)
    assert "not checked on the retrained model" in verdict.line


def test_a_figure_without_a_band_says_nothing():
    metrics = {k: v for k, v in of(task()).metrics.items() if "null" not in k}
    verdict = judged(only_scrub(task(), metrics=metrics))
    assert (verdict.kind, verdict.rule) == ("not known", 4)


def test_one_answer_for_all_examples_is_not_the_absence_of_a_leak():
    one = figures(0.5, se=0.0, null_mean=0.5, null_sd=0.0, null_lo=0.5, null_hi=0.5)
    found = task(0.5)
    verdict = judged(only_scrub(found, metrics=of(found).metrics | one))
    assert (verdict.kind, verdict.rule) == ("not known", 5)
    assert "masked" in verdict.why


def test_where_the_original_shows_nothing_a_quiet_method_shows_nothing():
    verdict = judged(task(0.51, identity=0.52))
    assert (verdict.kind, verdict.rule) == ("not known", 8)
    assert "no more than 52.0 %" in verdict.why
    verdict = judged(task(0.51, identity=None))
    assert (verdict.kind, verdict.rule) == ("not known", 8)
    assert "the original model was not attacked" in verdict.why


def test_a_leak_is_a_leak_also_where_the_original_shows_nothing():
    assert judged(task(0.6, identity=0.52)).kind == "leak"
    assert judged(task(0.6, identity=None)).kind == "leak"


def test_the_references_have_verdicts_of_their_own():
    assert judged(task(), "identity").line == "Nothing was forgotten."
    assert judged(task(), "identity").rule == 0
    assert judged(task(), "retrain").kind == "retrained"
    above = judged(task(retrain=0.535), "retrain")  # by chance, or not: it never saw the examples
    assert above.line == "There is nothing to forget in this model."


def test_no_leak_is_qualified_where_the_model_does_not_answer_as_a_retrained_one():
    found = task(0.51)
    metrics = of(found).metrics | {"forget_acc": 0.6}
    verdict = judged(only_scrub(found, metrics=metrics))
    assert verdict.but
    assert verdict.line == (
        "No leak was found that 16 shadow models can find, but the model does not answer as a "
        "retrained one does."
    )
    alone = found._replace(records=[r for r in found.records if (r.method, r.seed) !=
                                    ("retrain", 0)])  # fmt: skip
    assert "but there is no retrained model" in judged(alone).line


def test_two_points_or_two_standard_deviations_of_retrained_models_are_allowed():
    evidence = gather(of(task()), task())
    # retrained models are right in 10 and 14 %: sample standard deviation 0.04 / sqrt(2)
    assert allowed_gap(evidence, "forget_acc") == pytest.approx(2 * 0.04 / 2**0.5)
    assert allowed_gap(evidence, "test_acc") == pytest.approx(0.02)  # 2 x 0.0071 is less
    one = task(seeds=1)
    assert allowed_gap(gather(of(one), one), "forget_acc") == 0.02


def test_power_is_worked_out_where_the_record_has_none():
    found = task()
    assert power_of(gather(of(found), found)) == pytest.approx(0.562, abs=0.0005)
    metrics = of(found).metrics | {"ulira/power_d0.5": 0.55}
    told = only_scrub(found, metrics=metrics)
    assert power_of(gather(of(told), told)) == 0.55


def reserved(found, **changes):
    evidence = gather(of(found), found)
    return reservations(replace(evidence, row={**evidence.row, **changes}))


def test_nothing_stands_against_a_clean_result():
    assert reserved(task(0.51)) == []
    assert reserved(task(status="failed", reason="it diverged")) == []


def test_what_stands_against_a_verdict_is_said():
    far = only_scrub(task(), metrics=of(task()).metrics | {"forget_acc": 0.6, "test_acc": 0.7})
    (forget, test, gate) = reserved(far)
    assert gate.startswith("It does not pass the utility gate: test accuracy")
    assert "right in 60.0 %, the retrained model in 10.0 %" in forget
    assert "the 5.7 points that are allowed" in forget
    assert "right in 70.0 %, the retrained model in 94.0 %" in test
    outside = task(retrain=0.535)  # 2.3 standard deviations: chance may be the explanation
    assert "itself lies outside its band (53.5 %)" in reserved(outside)[0]
    oracle = only_scrub(task(), tuning={"track": "oracle"})
    assert "comparing with retrained models, which nobody has" in reserved(oracle)[0]
    alone = task()._replace(records=[r for r in task().records if r.method != "retrain"])
    assert "There is no retrained model of this seed" in reserved(alone)[0]
    failed = task()
    failed.records[-1] = cell("scrub", 1, status="failed", reason="it diverged")
    assert reserved(failed) == ["The same method failed with seed 1."]
    gate = reserved(task(), gate="fail", gate_reason="test accuracy 9 points below.")
    assert gate == ["It does not pass the utility gate: test accuracy 9 points below."]


def test_records_that_disagree_about_the_attack_are_told():
    found = task()
    other = of(found, seed=1)
    changed = other.model_copy(
        update={"attack": other.attack | {"shadows": 8}, "metrics": other.metrics | figures(0.6)}
    )
    found.records[found.records.index(other)] = changed
    assert reserved(found) == [
        "Records disagree about the attack (shadow models: 8, 16); the most count."
    ]
