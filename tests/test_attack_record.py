"""Records of attacks: what is packed comes back, and the curve is that of the scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearnbench.bench.attack_record import (
    AttackRecord,
    pooled_roc,
    read_attacks,
    write_attacks,
)
from unlearnbench.bench.errors import InputError
from unlearnbench.bench.metrics.rates import auc, tpr_at_fpr
from unlearnbench.bench.metrics.summary import summarise


def scores(pairs, examples, seed=0, leak=1.0):
    rng = np.random.default_rng(seed)
    return rng.normal(leak, 1, (pairs, examples)), rng.normal(0, 1, (pairs, examples))


def record_of(inside, outside, ids=None):
    ids = np.arange(inside.shape[1]) if ids is None else ids
    arrays = {"ids": ids, "privacy.in_scores": inside, "privacy.out_scores": outside}
    record = AttackRecord.of("k", "b", arrays)
    assert record is not None
    return record


@given(st.integers(1, 5), st.integers(1, 9), st.integers(0, 99))
def test_calls_come_back_as_they_were(pairs, examples, seed):
    inside, outside = scores(pairs, examples, seed)
    record = AttackRecord.model_validate_json(record_of(inside, outside).to_json())
    expected = ((inside > 0).astype(float) + (outside <= 0)) / 2
    np.testing.assert_array_equal(record.hit_matrix(), expected)


def test_calls_give_the_accuracy_of_the_attack():
    inside, outside = scores(8, 50)
    summary = summarise(inside, outside)
    record = record_of(inside, outside)
    assert record.hit_matrix().mean() == pytest.approx(summary.acc, abs=1e-12)
    np.testing.assert_allclose(record.per_example(), summary.per_example)


def test_every_point_of_the_curve_is_the_best_at_its_rate():
    inside, outside = scores(8, 200)
    fpr, tpr = pooled_roc(inside, outside)
    assert fpr[0] == 0
    assert (fpr[-1], tpr[-1]) == (1, 1)
    assert (np.diff(fpr) > 0).all()
    assert (np.diff(tpr) >= 0).all()
    for rate, found in zip(fpr[:-1], tpr[:-1], strict=True):
        assert tpr_at_fpr(inside, outside, rate) == (found, rate)
    # straight lines between the points lose little of the area
    assert np.trapezoid(tpr, fpr) == pytest.approx(auc(inside, outside), abs=0.01)


def test_ties_and_a_single_score_still_give_a_curve():
    fpr, tpr = pooled_roc([0.0, 0.0, 1.0], [0.0, 0.0])
    assert (fpr.tolist(), tpr.tolist()) == ([0.0, 1.0], [1 / 3, 1.0])
    assert pooled_roc([1.0], [0.0])[1].tolist() == [1.0, 1.0]


def test_the_most_exposed_are_named_worst_first():
    inside, outside = np.full((4, 12), -1.0), np.full((4, 12), 1.0)  # never right
    inside[:, 7], outside[:, 7] = 1, -1
    inside[:2, 3] = 1
    record = record_of(inside, outside, ids=np.arange(100, 112))
    assert record.most_exposed[:2] == [(107, 1.0), (103, 0.25)]
    assert len(record.most_exposed) == 10


def test_only_the_same_models_and_examples_are_paired():
    one, other = record_of(*scores(4, 6)), record_of(*scores(4, 6, seed=1))
    assert one.is_paired_with(other)
    assert not one.is_paired_with(record_of(*scores(4, 6), ids=np.arange(1, 7)))
    assert not one.is_paired_with(record_of(*scores(5, 6)))


def test_too_few_shadow_models_leave_no_record():
    assert AttackRecord.of("k", "b", {"ids": np.arange(3)}) is None


def test_files_come_back_and_bad_lines_are_named(tmp_path):
    assert read_attacks(tmp_path) == []
    record = record_of(*scores(4, 6))
    write_attacks(tmp_path / "attacks.jsonl", [record])
    assert read_attacks(tmp_path) == [record]
    broken = record.to_json().replace('"pairs": 4', '"pairs": 9')
    (tmp_path / "attacks.jsonl").write_text(broken)
    with pytest.raises(InputError, match=r"line 1 is not a valid record of an attack: .*9 x 6"):
        read_attacks(tmp_path)
