"""Tables of studies: numbers by hand from records, and the published ones anew from theirs."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from unlearnbench.bench import Record, read_records
from unlearnbench.bench.tablecell import NONE

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "tests" / "benchmarks" / "class_tables.py"


def tables(records, **options):
    spec = importlib.util.spec_from_file_location("class_tables", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.tables(records, **options)


def record(method, label, *, forgotten, kept, seed=0, seconds=1.0, probe=None, ain=None, **content):
    metrics = {"retain_acc": 1.0, "forget_acc": 0.0, "test_acc": 0.5,
               "test_forget_acc": forgotten, "test_retain_acc": kept}  # fmt: skip
    if probe is not None:
        metrics |= {"probe/recovery_10": probe, "relearn/ain": ain}
    return Record(
        sweep="s", key=f"{method}{label}{seed}", dataset="d", model="m", recipe="plain",
        scenario=f"class[classes=[{label}]]", forget_request=f"{label}", forget_size=1,
        retain_size=9, method=method, hyperparameters={}, seed=seed, status="ok",
        metrics=metrics, times={"unlearn_s": seconds, "prepare_s": 0.5},
        peak_memory_bytes=2**31, **content,
    )  # fmt: skip


def test_means_are_over_classes_and_the_worst_class_stands_beside():
    records = [
        record("identity", 0, forgotten=1.0, kept=0.8),
        record("identity", 1, forgotten=1.0, kept=0.5),
        record("m", 0, forgotten=0.1, kept=0.4, seconds=2.0, probe=0.25, ain=1.0),
        record("m", 1, forgotten=0.3, kept=0.5, seconds=4.0, probe=0.75, ain=2.0),
    ]
    text = tables(records, by_class=True)
    line = next(line for line in text.splitlines() if "| `m` |" in line)
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        "`plain`", "`m`", "20.0 ± 14.1", "30.0", "45.0 ± 7.1", "40.0", "75.0", "50.0 ± 35.4",
        "1.50", "3.00", NONE, NONE, "0.500", "2048", "2",
    ]  # fmt: skip
    assert "| `plain` | `m` | 10.0 | 30.0 |" in text


def test_a_failed_cell_is_left_out_of_the_means_and_counted():
    failed = record("m", 1, forgotten=0, kept=0).model_copy(
        update={"status": "failed", "reason": "it broke", "metrics": {}, "times": {}}
    )
    records = [record("identity", 0, forgotten=1, kept=1),
               record("m", 0, forgotten=0.2, kept=0.9), failed]  # fmt: skip
    line = next(line for line in tables(records).splitlines() if "| `m` |" in line)
    assert line.endswith("| 1 |")
    assert "| 20.0 |" in line


STUDIES = sorted(path.parent for path in (ROOT / "results").glob("*/records.jsonl"))
PUBLISHED = (ROOT / "results" / "README.md").read_text() if STUDIES else ""
STUDIES = [folder for folder in STUDIES if f"<!-- {folder.name} -->" in PUBLISHED]


@pytest.mark.skipif(not STUDIES, reason="the published studies are not beside the tests")
@pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: folder.name)
def test_published_tables_are_those_of_their_records(folder):
    stands = re.search(rf"<!-- {folder.name} -->\n(.*?)\n<!-- end -->", PUBLISHED, flags=re.DOTALL)
    assert stands[1].strip() == tables(read_records(folder), by_class=True).strip()
