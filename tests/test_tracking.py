"""MLflow as a view of the store."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

import numpy as np
import pytest
import torch

from unlearnbench.bench import tracking
from unlearnbench.bench.bank_record import BankRecord
from unlearnbench.bench.errors import InputError
from unlearnbench.bench.record import Record
from unlearnbench.bench.store import TENSORS, Store
from unlearnbench.bench.tracking import Tracker, check_uri

SWEEP = "quick start"
SPEC = {"name": SWEEP, "seeds": 2}
DESCRIPTION = {"spec": SPEC, "plan": {"cells": []}}
DEAD = "http://127.0.0.1:9"  # the discard port: nothing listens
SCORES = "5c0e" * 8
FIGURES = {
    "ulira.privacy/acc": 0.75,
    "ulira.privacy/tpr_0.01": 0.5,
    "ulira.privacy/acc_vs_retrain": -0.25,
    "ulira.efficacy/auc": 0.625,
    "ulira.retain/auc_change": -0.125,
    "ulira/per_example_p95": 0.875,
    "ulira/power_d0.5": 1.0,
    "mia.population/mod_entropy_songmittal_auc": 0.5,
    "klom/floor_p95": 2.5,
    "klom_gauss/mean": 1.5,
    "forgetting_score/f": 0.25,
    "mia_svc_efficacy": 0.375,
    "mia_entropy_member_rate": 0.5,
    "mia_challenge_accuracy": 0.625,
}
ATTACK = {
    "variant": "half_split",
    "shadows": 16,
    "examples": 163,
    "views": 2,
    "variance": "eb_t",
    "redraws": 200,
    "tuning_track": "none",
    "bank": "ba2c",
    "scores": SCORES,
}
ATTACK_PARAMS = {
    "ulira.variant": "half_split",
    "ulira.N": "16",
    "ulira.E": "163",
    "ulira.views": "2",
    "ulira.variance": "eb_t",
    "ulira.tuning_track": "none",
    "ulira.shadow_bank_hash": "ba2c",
}


def make_record(seed=0, status="ok", **changes):
    ok = {
        "metrics": {
            "retain_acc": 0.98,
            "forget_acc": 0.25,
            "test_acc": 0.9,
            "test_retain_acc": 0.93,
            "gap_forget_acc": 0.05,
            "gap_test_retain_acc": 0.01,
            "tow": 0.9,
        },
        "times": {"unlearn_s": 1.5, "prepare_s": 0.5, "retrain_s": 6.0, "speedup": 4.0},
        "peak_memory_bytes": 2048,
        "samples": {"forget": 50, "retain": 450},
    }
    values = {
        "sweep": SWEEP,
        "key": f"{seed:032x}",
        "dataset": "digits",
        "model": "resnet18[in_chans=1]",
        "recipe": "plain",
        "scenario": "class[classes=[3]]",
        "forget_request": "f00d",
        "forget_size": 50,
        "retain_size": 450,
        "method": "scrub",
        "hyperparameters": {"lr": 0.01, "epochs": 3, "schedule": "cosine"},
        "seed": seed,
        "status": status,
        "environment": {"hardware": "2 x cpu", "git_commit": "abc123", "device": "cpu"},
    }
    values |= ok if status == "ok" else {"reason": "out of memory"}
    return Record.model_validate(values | changes)


def make_attacked(seed=0, attack=ATTACK, figures=FIGURES, **changes):
    metrics = make_record().metrics | figures
    return make_record(seed, attack=attack, metrics=metrics, **changes)


def make_bank(**changes):
    values = {
        "bank": "ba2c",
        "dataset": "digits",
        "model": "resnet18[in_chans=1]",
        "recipe": "plain",
        "shadows": 16,
        "views": 2,
        "metrics": {
            "acc/in_mean": 0.99,
            "acc/test_std": 0.01,
            "lira/auc": 0.625,
            "time/training_s": 32.0,
        },
        "environment": {"hardware": "2 x cpu", "git_commit": "abc123", "device": "cpu"},
    }
    return BankRecord.model_validate(values | changes)


def put_scores(store, key=SCORES):
    """Store what an attack leaves, and return the file of its arrays."""
    tensors = {"ids": torch.arange(4), "privacy.in_scores": torch.ones(8, 4)}
    return Store(store).put("ulira", key, {"metrics": {}}, tensors).file(TENSORS)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory):
    """An MLflow database; making one takes seconds, copying it none."""
    store = tmp_path_factory.mktemp("migrated")
    tracker = Tracker(None, store, "unused")
    tracker.start({})
    assert tracker.finish([], {})
    return store / "mlflow.db"


@pytest.fixture
def store(migrated, tmp_path):
    folder = tmp_path / "the store #1"
    folder.mkdir()
    shutil.copy(migrated, folder / "mlflow.db")
    return folder


def log(store, records, uri=None, files=(), summary=None, banks=()):
    """Run one whole sweep through a tracker of its own."""
    tracker = Tracker(uri, store, SWEEP)
    tracker.start(DESCRIPTION)
    for bank in banks:
        tracker.log_bank(bank)
    for record in records:
        tracker.log(record)
    assert tracker.finish(files, summary or {}), "MLflow is not complete"
    return tracker


def client_of(tracker):
    from mlflow import MlflowClient

    return MlflowClient(tracker.uri)


def runs_of(tracker, kind="cell", *, deleted=False):
    from mlflow.entities import ViewType

    client = client_of(tracker)
    experiment = client.get_experiment_by_name(SWEEP)
    view = ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY
    found = client.search_runs(
        [experiment.experiment_id], f"tags.`unlearnbench.kind` = '{kind}'", run_view_type=view
    )
    return sorted(found, key=lambda run: int(run.data.tags.get("seed", 0)))


def artifact(tracker, run, path):
    from mlflow.artifacts import download_artifacts

    local = download_artifacts(run_id=run.info.run_id, artifact_path=path, tracking_uri=tracker.uri)
    return Path(local).read_text(encoding="utf-8")


def artifacts_of(tracker, run, folder):
    return [info.path for info in client_of(tracker).list_artifacts(run.info.run_id, folder)]


def ids_of(runs):
    return [run.info.run_id for run in runs]


def memory_file(store):
    (found,) = (store / "tracking").glob("*.json")
    return found


def test_a_cell_becomes_a_child_run_with_params_metrics_tags_and_its_record(store):
    record = make_record(seed=1)
    tracker = log(store, [record])
    (parent,) = runs_of(tracker, "sweep")
    (run,) = runs_of(tracker)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "scrub seed 1"
    assert run.info.end_time - run.info.start_time == 2000  # prepare_s + unlearn_s
    assert run.data.params == {
        "lr": "0.01",
        "epochs": "3",
        "schedule": "cosine",
        "dataset": "digits",
        "model": "resnet18[in_chans=1]",
        "recipe": "plain",
        "scenario": "class[classes=[3]]",
        "method": "scrub",
        "seed": "1",
        "forget_size": "50",
        "retain_size": "450",
    }
    assert run.data.metrics == {
        "acc/retain": 0.98,
        "acc/forget": 0.25,
        "acc/test": 0.9,
        "acc/test_retain": 0.93,
        "gap/forget": 0.05,
        "gap/test_retain": 0.01,
        "tow/tow": 0.9,
        "time/unlearn_s": 1.5,
        "time/prepare_s": 0.5,
        "time/retrain_s": 6.0,
        "time/rte": 4.0,
        "memory/peak_bytes": 2048.0,
        "samples/forget": 50.0,
        "samples/retain": 450.0,
    }
    expected = {
        "unlearnbench.key": record.key,
        "mlflow.parentRunId": parent.info.run_id,
        "mlflow.source.git.commit": "abc123",
        "mlflow.source.name": "unlearnbench",
        "dataset": "digits",
        "model": "resnet18[in_chans=1]",
        "recipe": "plain",
        "scenario": "class[classes=[3]]",
        "forget_request": "f00d",
        "method": "scrub",
        "seed": "1",
        "status": "ok",
        "hardware": "2 x cpu",
        "git_commit": "abc123",
    }
    assert expected.items() <= run.data.tags.items()
    assert "reason" not in run.data.tags
    assert not [tag for tag in run.data.tags if tag.startswith("ulira")]
    assert Record.model_validate_json(artifact(tracker, run, "record.json")) == record


def test_the_parent_run_holds_the_spec_the_files_and_the_summary(store, tmp_path):
    page = tmp_path / "leaderboard.md"
    page.write_text("| method |\n")
    log(store, [make_record()], files=[page], summary={"cells": 1.0})
    tracker = log(store, [make_record()], files=[page], summary={"cells": 2.0, "x": float("nan")})
    (parent,) = runs_of(tracker, "sweep")
    assert parent.info.status == "FINISHED"
    assert parent.info.run_name == SWEEP
    assert parent.data.metrics == {"cells": 2.0}
    assert json.loads(artifact(tracker, parent, "spec.json")) == SPEC
    assert artifact(tracker, parent, "leaderboard/leaderboard.md") == "| method |\n"
    assert (store / "mlartifacts").is_dir()


@pytest.mark.parametrize(("status", "run_status"), [("failed", "FAILED"), ("skipped", "FINISHED")])
def test_a_cell_that_gave_nothing_is_logged_with_its_reason(store, status, run_status):
    (run,) = runs_of(log(store, [make_record(status=status)]))
    assert run.info.status == run_status
    assert run.data.tags["status"] == status
    assert run.data.tags["reason"] == "out of memory"
    assert run.data.metrics == {}


@pytest.mark.parametrize("forgotten", [False, True], ids=["remembered", "memory lost"])
def test_logging_the_same_records_again_adds_nothing(store, forgotten):
    records = [make_record(seed) for seed in range(3)]
    before = runs_of(log(store, records))
    if forgotten:
        memory_file(store).unlink()
    tracker = log(store, records)
    assert [run.info.run_id for run in runs_of(tracker)] == [run.info.run_id for run in before]
    assert len(runs_of(tracker, "sweep")) == 1
    assert tracker.is_current(records)


def test_a_changed_record_replaces_the_run_of_its_cell(store):
    same, failed = make_record(0), make_record(1, status="failed")
    first = runs_of(log(store, [same, failed]))
    tracker = log(store, [same, make_record(1)])
    second = runs_of(tracker)
    assert [run.info.status for run in second] == ["FINISHED", "FINISHED"]
    assert second[0].info.run_id == first[0].info.run_id
    assert [run.info.run_id for run in runs_of(tracker, deleted=True)] == [first[1].info.run_id]


def test_a_record_that_changes_within_a_sweep_is_there_once(store):
    tracker = log(store, [make_record(status="failed"), make_record(), make_record()])
    (run,) = runs_of(tracker)
    assert run.data.tags["status"] == "ok"


def test_what_a_cell_gains_within_a_sweep_is_added_to_its_run(store):
    whole = make_record()
    early = {name: value for name, value in whole.metrics.items() if not name.startswith("gap")}
    tracker = log(store, [make_record(metrics=early), whole])
    (run,) = runs_of(tracker)
    assert run.data.metrics["gap/forget"] == 0.05
    assert Record.model_validate_json(artifact(tracker, run, "record.json")) == whole
    assert runs_of(tracker, deleted=True) == []
    assert tracker.is_current([whole])
    assert [r.info.run_id for r in runs_of(log(store, [whole]))] == [run.info.run_id]


def test_cells_that_left_the_sweep_are_left_alone(store):
    log(store, [make_record(0), make_record(1)])
    tracker = log(store, [make_record(1), make_record(2)])
    assert [run.data.tags["seed"] for run in runs_of(tracker)] == ["0", "1", "2"]
    assert tracker.is_current([make_record(0), make_record(1), make_record(2)])


def test_two_stores_do_not_overwrite_one_another_in_one_database(store, tmp_path):
    mine = log(store, [make_record()])
    log(tmp_path / "colleague", [make_record(times={"unlearn_s": 9.0})], uri=mine.uri)
    assert len(runs_of(mine, "sweep")) == 2
    assert {run.data.metrics["time/unlearn_s"] for run in runs_of(mine)} == {1.5, 9.0}


def test_a_writer_that_was_killed_is_taken_up(store):
    tracker = log(store, [make_record(0)])
    client, (parent,), (child,) = client_of(tracker), runs_of(tracker, "sweep"), runs_of(tracker)
    client.update_run(parent.info.run_id, status="RUNNING")
    client.update_run(child.info.run_id, status="RUNNING")
    left = client.create_run(
        child.info.experiment_id, tags=child.data.tags | {"unlearnbench.key": "gone"}
    )
    tracker = log(store, [make_record(0)])
    assert [run.info.status for run in runs_of(tracker, "sweep")] == ["FINISHED"]
    (again,) = runs_of(tracker)
    assert again.info.status == "FINISHED"
    assert again.info.run_id not in (child.info.run_id, left.info.run_id)


def test_a_deleted_experiment_is_restored(store):
    tracker = log(store, [make_record()])
    (run,) = runs_of(tracker)
    client_of(tracker).delete_experiment(run.info.experiment_id)
    assert not tracker.is_current([make_record()])
    assert len(runs_of(log(store, [make_record(), make_record(1)]))) == 2


def test_a_deleted_parent_run_is_made_anew_with_its_cells(store):
    tracker = log(store, [make_record()])
    (parent,) = runs_of(tracker, "sweep")
    client_of(tracker).delete_run(parent.info.run_id)
    assert not tracker.is_current([make_record()])
    tracker = log(store, [make_record()])
    (parent,), (run,) = runs_of(tracker, "sweep"), runs_of(tracker)
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_a_deleted_database_is_made_anew(store, migrated):
    tracker = log(store, [make_record()])
    assert tracker.is_current([make_record()])
    (store / "mlflow.db").unlink()
    assert not tracker.is_current([make_record()])
    tracker = log(store, [make_record()])
    assert len(runs_of(tracker)) == 1
    assert tracker.is_current([make_record()])


def test_is_current_compares_the_content_of_every_record(store):
    assert not Tracker(None, store, SWEEP).is_current([])
    log(store, [make_record(0), make_record(1, status="failed")])
    tracker = Tracker(None, store, SWEEP)
    assert tracker.is_current([make_record(1, status="failed"), make_record(0)])
    assert tracker.is_current([make_record(0)])
    assert not tracker.is_current([make_record(1)])
    assert not tracker.is_current([make_record(0), make_record(2)])
    assert not Tracker(None, store, "other").is_current([make_record(0)])
    assert not Tracker(DEAD, store, SWEEP).is_current([make_record(0)])
    memory_file(store).write_text("{")
    assert not tracker.is_current([make_record(0)])


def test_many_parameters_long_values_and_odd_names_are_taken(store):
    hyperparameters = {f"p{number}": number for number in range(250)}
    hyperparameters |= {"text": "x" * 20_000, "seed": 7, "layers": ["a", "b"], "none": None}
    metrics = make_record().metrics | {"plugin@1 (top)": 0.5}
    record = make_record(hyperparameters=hyperparameters, metrics=metrics)
    (run,) = runs_of(log(store, [record]))
    assert len(run.data.params) == 250 + 4 + 8
    assert len(run.data.params["text"]) == 6000
    assert run.data.params["method.seed"] == "7"
    assert run.data.params["seed"] == "0"
    assert run.data.params["layers"] == '["a", "b"]'
    assert run.data.metrics["plugin_1 _top_"] == 0.5


def test_a_cell_that_mlflow_refuses_does_not_keep_the_others_out(store, caplog):
    refused = make_record(0, metrics=make_record().metrics | {"/../x": 0.5})
    tracker = Tracker(None, store, SWEEP)
    tracker.start(DESCRIPTION)
    for record in (refused, make_record(1)):
        tracker.log(record)
    assert not tracker.finish([], {})
    assert [run.data.tags["seed"] for run in runs_of(tracker)] == ["1"]
    assert "lacks 1 of the runs, score files or models: scrub seed 0 was refused" in caplog.text
    assert not tracker.is_current([refused])


def test_figures_of_the_attack_keep_their_names(store):
    put_scores(store)
    plain = log(store, [make_record()])
    (before,) = runs_of(plain)
    (run,) = runs_of(log(store, [make_attacked()]))
    assert run.data.metrics == before.data.metrics | FIGURES


def test_a_cell_tells_how_it_was_attacked(store):
    put_scores(store)
    tracker = log(store, [make_record(0), make_attacked(1)])
    plain, attacked = runs_of(tracker)
    of_attack = [
        {name: value for name, value in run.data.params.items() if name.startswith("ulira")}
        for run in (plain, attacked)
    ]
    assert of_attack == [{}, ATTACK_PARAMS]
    tags = {name: v for name, v in attacked.data.tags.items() if name.startswith("ulira")}
    assert tags == {"ulira.scores": SCORES}


def test_a_suspicion_becomes_a_tag(store):
    put_scores(store)
    (run,) = runs_of(log(store, [make_attacked(attack=ATTACK | {"suspicion": "it saw them"})]))
    assert run.data.tags["ulira.suspicion"] == "it saw them"


def test_an_attack_that_gave_nothing_is_logged_with_its_reason(store):
    attack = {"bank": "ba2c", "reason": "needs the original's training set"}
    tracker = log(store, [make_attacked(attack=attack, figures={})])
    (parent,), (run,) = runs_of(tracker, "sweep"), runs_of(tracker)
    assert run.info.status == "FINISHED"
    assert run.data.tags["ulira.reason"] == attack["reason"]
    assert run.data.params["ulira.shadow_bank_hash"] == "ba2c"
    assert "ulira.N" not in run.data.params
    assert artifacts_of(tracker, parent, "ulira") == []


def test_the_scores_of_an_attack_are_in_the_parent_run_once(store, tmp_path):
    from mlflow.artifacts import download_artifacts
    from safetensors.numpy import load_file

    put_scores(store)
    put_scores(store, "0ther")
    other = make_attacked(9, method="finetune", attack=ATTACK | {"scores": "0ther"})
    tracker = log(store, [*(make_attacked(seed) for seed in range(3)), other])
    (parent,) = runs_of(tracker, "sweep")
    names = [f"ulira/{key}.safetensors" for key in ("0ther", SCORES)]
    assert artifacts_of(tracker, parent, "ulira") == names
    for run in runs_of(tracker):
        assert artifacts_of(tracker, run, None) == ["record.json"]
    local = download_artifacts(
        run_id=parent.info.run_id,
        artifact_path=names[1],
        tracking_uri=tracker.uri,
        dst_path=str(tmp_path),
    )
    arrays = load_file(local)
    assert arrays.keys() == {"ids", "privacy.in_scores"}
    np.testing.assert_array_equal(arrays["ids"], range(4))
    np.testing.assert_array_equal(arrays["privacy.in_scores"], np.ones((8, 4)))


def scores_in_mlflow(tracker):
    (parent,) = runs_of(tracker, "sweep")
    root = Path(urllib.parse.unquote(parent.info.artifact_uri.removeprefix("file://")))
    return root / "ulira" / f"{SCORES}.safetensors"


@pytest.mark.parametrize("forgotten", [False, True], ids=["remembered", "memory lost"])
def test_scores_that_are_in_mlflow_are_not_copied_again(store, forgotten):
    put_scores(store)
    path = scores_in_mlflow(log(store, [make_attacked()]))
    before = path.stat()
    if forgotten:
        memory_file(store).unlink()
    tracker = log(store, [make_attacked(), make_attacked(1)])
    assert scores_in_mlflow(tracker) == path
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert tracker.is_current([make_attacked(), make_attacked(1)])


@pytest.mark.parametrize("left", [b"", b"half"], ids=["empty", "half"])
def test_a_copy_of_the_scores_that_was_cut_off_is_made_again(store, left):
    file = put_scores(store)
    path = scores_in_mlflow(log(store, [make_attacked()]))
    path.write_bytes(left)
    log(store, [make_attacked()])
    assert path.read_bytes() == file.read_bytes()


def test_a_new_parent_run_gets_the_scores_too(store):
    file = put_scores(store)
    tracker = log(store, [make_attacked()])
    client_of(tracker).delete_run(runs_of(tracker, "sweep")[0].info.run_id)
    tracker = log(store, [make_attacked()])
    assert scores_in_mlflow(tracker).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("damage", ["damaged", "not in the store"])
def test_scores_that_cannot_be_read_cost_a_warning_and_no_run(store, caplog, damage):
    if damage == "damaged":
        put_scores(store).write_bytes(b"junk")
    records = [make_attacked(seed) for seed in range(2)]
    tracker = Tracker(None, store, SWEEP)
    tracker.start(DESCRIPTION)
    for record in records:
        tracker.log(record)
    assert not tracker.finish([], {})
    (warning,) = our_warnings(caplog)
    assert "lacks 1 of the runs, score files or models" in warning
    assert damage in warning
    assert [run.data.metrics["ulira.privacy/acc"] for run in runs_of(tracker)] == [0.75, 0.75]
    assert not tracker.is_current(records)
    Store(store).drop("ulira", SCORES)
    put_scores(store)
    before = ids_of(runs_of(tracker))
    tracker = log(store, records)
    assert ids_of(runs_of(tracker)) == before
    assert tracker.is_current(records)


def test_an_attack_that_comes_later_is_added_to_the_run_of_its_cell(store):
    put_scores(store)
    whole = make_attacked(attack=ATTACK | {"suspicion": "it saw them"})
    tracker = log(store, [make_record(), whole])
    (run,) = runs_of(tracker)
    assert FIGURES.items() <= run.data.metrics.items()
    assert ATTACK_PARAMS.items() <= run.data.params.items()
    assert run.data.tags["ulira.scores"] == SCORES
    assert run.data.tags["ulira.suspicion"] == "it saw them"
    assert Record.model_validate_json(artifact(tracker, run, "record.json")) == whole
    assert runs_of(tracker, deleted=True) == []
    assert tracker.is_current([whole])
    assert ids_of(runs_of(log(store, [whole]))) == ids_of([run])


def test_a_cell_whose_attack_succeeds_after_all_gets_a_new_run(store):
    put_scores(store)
    early = make_attacked(attack={"bank": "ba2c", "reason": "out of memory"}, figures={})
    tracker = log(store, [early, make_attacked()])
    (run,) = runs_of(tracker)
    assert "ulira.reason" not in run.data.tags
    assert run.data.metrics["ulira.privacy/acc"] == 0.75
    assert len(runs_of(tracker, deleted=True)) == 1


def test_a_bank_becomes_a_child_run_with_what_it_is_and_its_record(store):
    bank = make_bank()
    tracker = log(store, [make_record()], banks=[bank])
    (parent,), (run,) = runs_of(tracker, "sweep"), runs_of(tracker, "bank")
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "shadow bank digits resnet18[in_chans=1]"
    assert run.info.end_time - run.info.start_time == 32_000  # time/training_s
    assert run.data.params == {
        "dataset": "digits",
        "model": "resnet18[in_chans=1]",
        "recipe": "plain",
        "shadows": "16",
        "views": "2",
        "bank": "ba2c",
    }
    assert run.data.metrics == bank.metrics
    expected = {
        "unlearnbench.key": "ba2c",
        "mlflow.parentRunId": parent.info.run_id,
        "mlflow.source.git.commit": "abc123",
        "dataset": "digits",
        "model": "resnet18[in_chans=1]",
        "recipe": "plain",
        "hardware": "2 x cpu",
    }
    assert expected.items() <= run.data.tags.items()
    assert artifacts_of(tracker, run, None) == ["bank.json"]
    assert BankRecord.model_validate_json(artifact(tracker, run, "bank.json")) == bank
    assert len(runs_of(tracker)) == 1


@pytest.mark.parametrize("forgotten", [False, True], ids=["remembered", "memory lost"])
def test_logging_the_same_bank_again_adds_nothing(store, forgotten):
    put_scores(store)
    records, banks = [make_attacked()], [make_bank(), make_bank(bank="ba2d")]
    before = log(store, records, banks=banks)
    children = [ids_of(runs_of(before, kind)) for kind in ("sweep", "cell", "bank")]
    assert [len(runs) for runs in children] == [1, 1, 2]
    if forgotten:
        memory_file(store).unlink()
    tracker = log(store, records, banks=[*banks, *banks])
    again = [runs_of(tracker, kind) for kind in ("sweep", "cell", "bank")]
    assert [sorted(ids_of(runs)) for runs in again] == [sorted(runs) for runs in children]
    assert tracker.is_current(records, banks)


def test_a_changed_bank_replaces_its_run(store):
    same = make_bank(bank="ba2d")
    first = log(store, [], banks=[make_bank(), same])
    stale = next(r for r in runs_of(first, "bank") if r.data.params["bank"] == "ba2c")
    changed = make_bank(metrics={"acc/in_mean": 0.5})
    assert not first.is_current([], [changed])
    tracker = log(store, [], banks=[changed, same])
    by_bank = {run.data.params["bank"]: run for run in runs_of(tracker, "bank")}
    assert by_bank["ba2c"].data.metrics == {"acc/in_mean": 0.5}
    assert by_bank["ba2d"].info.run_id in ids_of(runs_of(first, "bank"))
    assert ids_of(runs_of(tracker, "bank", deleted=True)) == [stale.info.run_id]
    assert tracker.is_current([], [changed, same])


def test_a_half_made_bank_of_a_killed_writer_is_made_anew(store):
    tracker = log(store, [], banks=[make_bank()])
    (run,) = runs_of(tracker, "bank")
    client_of(tracker).update_run(run.info.run_id, status="RUNNING")
    (again,) = runs_of(log(store, [], banks=[make_bank()]), "bank")
    assert again.info.run_id != run.info.run_id
    assert again.info.status == "FINISHED"


def test_is_current_asks_for_the_banks_too(store):
    log(store, [make_record()], banks=[make_bank()])
    tracker = Tracker(None, store, SWEEP)
    assert tracker.is_current([make_record()])
    assert tracker.is_current([make_record()], [make_bank()])
    assert not tracker.is_current([make_record()], [make_bank(), make_bank(bank="ba2d")])
    assert not tracker.is_current([make_record()], [make_bank(environment={})])
    (run,) = runs_of(tracker, "bank")
    client_of(tracker).delete_run(run.info.run_id)
    assert tracker.is_current([make_record()])
    assert not tracker.is_current([make_record()], [make_bank()])


def test_what_was_remembered_before_there_were_banks_is_read(store):
    log(store, [make_record()])
    memory = json.loads(memory_file(store).read_text())
    del memory["banks"], memory["scores"]
    memory_file(store).write_text(json.dumps(memory))
    tracker = Tracker(None, store, SWEEP)
    assert tracker.is_current([make_record()])
    assert not tracker.is_current([make_record()], [make_bank()])


def test_nothing_is_printed_and_the_environment_is_left_as_found(store, capfd, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    before = dict(os.environ)
    put_scores(store)
    log(store, [make_attacked()], banks=[make_bank()])
    assert capfd.readouterr() == ("", "")
    assert dict(os.environ) == before


def test_finish_without_start_and_log_without_start_do_no_harm(store):
    tracker = Tracker(None, store, SWEEP)
    tracker.log(make_record())
    tracker.log_bank(make_bank())
    assert not tracker.finish([], {})


def test_tracking_is_cheap_until_it_starts(store):
    log(store, [make_record()])
    code = (
        "import sys; from pathlib import Path; from unlearnbench.bench.tracking import *;"
        f"t = Tracker(None, Path({str(store)!r}), {SWEEP!r});"
        "r = t.is_current([]), t.ui_command();"
        "heavy = {'mlflow', 'torch', 'alembic', 'sqlalchemy', 'requests'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else not all(r))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def our_warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.name == tracking.__name__]


def unfinished(uri, store, caplog):
    """Log to something that does not work; return the seconds it took and the warning."""
    tracker = Tracker(uri, store, SWEEP)
    began = time.monotonic()
    tracker.start(DESCRIPTION)
    tracker.log_bank(make_bank())
    tracker.log(make_record())
    assert not tracker.finish([], {})
    seconds = time.monotonic() - began
    assert not tracker.is_current([make_record()])
    (warning,) = our_warnings(caplog)
    assert "\n" not in warning
    return seconds, warning


def test_a_server_that_is_down_costs_one_warning_and_no_time(tmp_path, caplog, capfd):
    seconds, warning = unfinished(DEAD, tmp_path, caplog)
    assert warning.startswith(f"MLflow at `{DEAD}` is not complete (")
    assert "refused" in warning
    assert "nothing is lost" in warning
    assert "run again completes MLflow" in warning
    assert seconds < 20
    assert capfd.readouterr().err == ""


def test_a_server_that_never_answers_is_given_up(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(tracking, "STALL_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        seconds, warning = unfinished(uri, tmp_path, caplog)
    assert "no answer for" in warning
    assert seconds < 9


@pytest.mark.parametrize("content", [b"not a database at all" * 99, None], ids=["junk", "folder"])
def test_a_database_that_cannot_be_opened_costs_one_warning(tmp_path, caplog, capfd, content):
    path = tmp_path / "mlflow.db"
    path.mkdir() if content is None else path.write_bytes(content)
    seconds, warning = unfinished(None, tmp_path, caplog)
    assert "nothing is lost" in warning
    assert seconds < 20
    assert capfd.readouterr().err == ""


def test_a_sweep_that_another_process_is_logging_is_left_to_it(store, caplog, monkeypatch):
    from filelock import FileLock

    monkeypatch.setattr(tracking, "LOCK_S", 0.1)
    log(store, [make_record()])
    with FileLock(memory_file(store).with_suffix(".lock")):
        tracker = Tracker(None, store, SWEEP)
        tracker.start(DESCRIPTION)
        tracker.log(make_record(1))
        assert not tracker.finish([], {})
    assert "another process is logging the same sweep" in caplog.text


@pytest.mark.parametrize(
    ("uri", "secret"),
    [
        ("http://ann:s3cr3t@127.0.0.1:9", "s3cr3t"),
        ("http://s3cr3t@127.0.0.1:9", "s3cr3t"),
        ("http://ann:p%40ss@127.0.0.1:9", "p@ss"),
        ("http://127.0.0.1:9/?token=s3cr3t", "s3cr3t"),
        ("postgresql+nosuchdriver://ann:s3cr3t@127.0.0.1:9/db", "s3cr3t"),
    ],
)
def test_secrets_show_nowhere(uri, secret, tmp_path, caplog, capfd):
    tracker = Tracker(uri, tmp_path, SWEEP)
    tracker.start({"spec": {"tracking_uri": uri}})
    assert not tracker.finish([], {})
    shown = caplog.text + "".join(capfd.readouterr()) + tracker.ui_command() + repr(tracker)
    shown += "".join(p.read_text() + p.name for p in tmp_path.rglob("*") if p.is_file())
    assert "***" in shown or "?token" in uri
    assert secret not in shown
    assert uri.partition("://")[2].rpartition("@")[0] not in shown or "@" not in uri


def test_secrets_do_not_reach_the_spec_in_mlflow(store, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0k3n")
    tracker = Tracker(None, store, SWEEP)
    tracker.start({"spec": {"tracking_uri": "http://ann:s3cr3t@host", "token": "t0k3n"}})
    assert tracker.finish([], {})
    (parent,) = runs_of(tracker, "sweep")
    spec = json.loads(artifact(tracker, parent, "spec.json"))
    assert spec == {"tracking_uri": "http://***@host", "token": "***"}


@pytest.mark.parametrize(
    "uri",
    [
        "foo://x",
        "mlruns",
        "file:///tmp/mlruns",
        "/tmp/mlruns",
        "",
        "sqlite://mlflow.db",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///folder/",
        "http://",
        "http:///path",
        "http:/host",
        "http://host:port",
        "http://my host",
        "postgresql://",
        "ann:s3cr3t@host",
        "foo://ann:s3cr3t@host",
        "http://ann:s3/cr3t@host:port",
    ],
)
def test_a_bad_uri_is_one_sentence_that_says_what_is_allowed(uri, tmp_path):
    with pytest.raises(InputError, match=r"cannot log to the tracking URI `.*sqlite:///") as caught:
        check_uri(uri)
    (sentence,) = caught.value.sentences
    assert "cr3t" not in sentence
    assert sentence.count(". ") == 0
    with pytest.raises(InputError):
        Tracker(uri, tmp_path, SWEEP)


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:///mlflow.db",
        "sqlite:////abs/mlflow.db?timeout=30",
        "http://localhost:5000",
        "https://ann:s3cr3t@mlflow.example.org/team/",
        "http://[::1]:5000",
        "postgresql+psycopg2://ann:s3cr3t@host/db",
        "mysql+pymysql://host:3306/db",
        "mssql+pyodbc://host/db?driver=x",
    ],
)
def test_a_good_uri_is_accepted(uri):
    check_uri(uri)


def test_a_relative_database_is_meant_from_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Tracker("sqlite:///x/my.db", tmp_path, SWEEP).uri == f"sqlite:///{tmp_path}/x/my.db"


def test_the_ui_command_is_quoted(tmp_path):
    quoted = Tracker(None, tmp_path / "a b", SWEEP).ui_command()
    assert quoted == f"mlflow ui --backend-store-uri 'sqlite:///{tmp_path}/a b/mlflow.db'"
    assert Tracker("http://ann:s3cr3t@host:5000/", tmp_path, SWEEP).ui_command() == (
        "http://host:5000"
    )


@pytest.mark.slow
def test_two_processes_start_on_an_empty_database_together(tmp_path):
    code = (
        "import sys; from pathlib import Path; from unlearnbench.bench.tracking import Tracker;"
        "t = Tracker(None, Path(sys.argv[1]), sys.argv[2]); t.start({});"
        "sys.exit(not t.finish([], {}))"
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), name],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two", "three")
    ]
    for writer in writers:
        assert writer.communicate(timeout=240) == ("", "")
        assert writer.returncode == 0
