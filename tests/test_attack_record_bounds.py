"""Records of attacks whose numbers no attack can give are refused."""

from __future__ import annotations

import base64

import pytest
from pydantic import ValidationError

from unlearnbench.bench.attack_record import AttackRecord

# 2 x 3 calls: codes 0, 1, 2, 0 and 1, 2, with 0 in the two places that are not used
HITS = (0b00_10_01_00, 0b00_00_10_01)


def record(hits=HITS, fpr=(0.0, 1.0), tpr=(0.5, 1.0)):
    packed = base64.b64encode(bytes(hits)).decode()
    roc = {"fpr": list(fpr), "tpr": list(tpr)}
    return AttackRecord(key="k", bank="b", pool="p", pairs=2, examples=3, hits=packed, roc=roc)


def test_codes_from_0_to_2_are_halves_of_calls():
    assert record().hit_matrix().tolist() == [[0, 0.5, 1], [0, 0.5, 1]]


@pytest.mark.parametrize("place", range(6))
def test_a_code_of_3_is_refused(place):
    hits = list(HITS)
    hits[place // 4] |= 3 << 2 * (place % 4)
    with pytest.raises(ValidationError, match="`hits` holds a code that is none of 0, 1 and 2"):
        record(hits)


@pytest.mark.parametrize("rate", [-0.1, 1.1])
@pytest.mark.parametrize("name", ["fpr", "tpr"])
def test_rates_outside_0_and_1_are_refused(name, rate):
    with pytest.raises(ValidationError, match="`roc` must hold fractions, from 0 to 1"):
        record(**{name: (0.0, rate)})
