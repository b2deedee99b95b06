"""The attack in a whole sweep: records, exit codes, bad input, processes; a table on digits."""

from __future__ import annotations

import json
import os
import signal
import time

import numpy as np
import pytest

from unlearnbench.bench import InputError, read_records
from unlearnbench.bench.attack_record import read_attacks
from unlearnbench.bench.metrics.ulira import ulira
from unlearnbench.bench.runner import run_sweep
from unlearnbench.bench.sweep import read_sweep

from .attack_toys import (
    BY_HEART,
    LEARNER,
    PLUGINS,
    SIMPLE,
    TINY,
    attack_on,
    attack_spec,
    bank_of,
    carry_out,
    figures,
    lay_out,
    margins_after,
    tensors_of,
)
from .commands import artifacts, call, plugins_forgotten, start
from .toys import toy_options

SWEEP = f"""
name = "attacked"
datasets = ["{SIMPLE}"]
models = ["{TINY}"]
scenarios = ["random[fraction=0.3]"]
methods = ["finetune[epochs=1]"]
plugins = ["{PLUGINS}"]

[training]
epochs = 2
batch_size = 32
optimizer = "adamw"
lr = 3e-3

[ulira]
shadows = 6
redraws = 20
"""


@pytest.fixture(autouse=True, scope="module")
def _forgetful():
    with plugins_forgotten():
        yield


def moody(mood, forget_sum=0):
    return {"name": "moody", "mood": mood, "forget_sum": forget_sum, "training_size": 80}


# --- records ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swept(tmp_path_factory, tracking_uri):
    """Two seeds; a method that is served, one that fails on one shadow model, one that declines."""
    folder = tmp_path_factory.mktemp("swept")
    _, plan = lay_out(attack_spec())
    total = int(next(iter(plan.attacks.values())).cells[1].forget.sum())
    methods = ["finetune[epochs=1]", moody("nan", total), moody("decline"), "osp"]
    spec = attack_spec(methods=methods, seeds=2)
    result = run_sweep(spec, toy_options(folder, tracking_uri=tracking_uri))
    assert result.records == read_records(folder / "out")
    return folder, spec, result


def by_method(records):
    return {(r.method, r.hyperparameters.get("mood"), r.seed): r for r in records}


def test_all_seeds_of_a_row_carry_the_figures_of_its_attack(swept):
    folder, spec, result = swept
    done = carry_out(spec, folder / "store")  # nothing is left to do but what fails
    records = by_method(result.records)
    for method in ("identity", "retrain", "finetune"):
        stored = figures(done, method)
        for seed in (0, 1):
            record = records[method, None, seed]
            assert record.metrics | stored == record.metrics
            attack = record.attack
            assert attack["bank"] == bank_of(done.plan).hash
            assert attack["scores"] == attack_on(done, method).key
            assert (attack["shadows"], attack["examples"]) == (6, 32)
            assert "reason" not in attack
            assert "suspicion" not in attack


def test_cells_whose_attack_fails_are_ok_and_say_why(swept):
    _, _, result = swept
    for seed in (0, 1):
        failed = by_method(result.records)["moody", "nan", seed]
        assert failed.status == "ok"
        assert "gap_forget_acc" in failed.metrics
        assert failed.attack["reason"].startswith(
            "unlearning a shadow model failed: on shadow model "
        )
        assert "outputs on the train set are not finite" in failed.attack["reason"]
        declined = by_method(result.records)["moody", "decline", seed]
        assert declined.status == "ok"
        assert declined.attack["reason"] == "the network is too shy"
        for record in (failed, declined):
            assert not [n for n in record.metrics if n.startswith(("ulira", "mia.population"))]
    assert result.summary["attacks_failed"] == 1
    assert result.summary["cells_failed"] == 0


def test_a_skipped_cell_has_no_attack(swept):
    record = by_method(swept[2].records)["osp", None, 0]
    assert record.status == "skipped"
    assert record.attack == {}


def test_the_bank_has_its_record(swept):
    folder, spec, _ = swept
    (line,) = (folder / "out" / "banks.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert record["bank"] == bank_of(lay_out(spec)[1]).hash
    assert (record["shadows"], record["views"], record["recipe"]) == (6, 1, "plain")
    assert {"acc/in_mean", "acc/out_std", "lira/auc", "time/training_s"} <= set(record["metrics"])


def test_attacks_have_records_pair_by_pair_that_agree_with_the_figures(swept):
    folder, _, result = swept
    attacks = read_attacks(folder / "out")
    assert attacks == result.attacks
    found = {attack.key: attack for attack in attacks}
    scored = [r for r in result.records if "ulira.privacy/acc" in r.metrics]
    assert {record.attack["scores"] for record in scored} == found.keys()
    for record in scored:
        attack = found[record.attack["scores"]]
        assert attack.bank == record.attack["bank"]
        assert (2 * attack.pairs, attack.examples) == (6, 32)
        assert attack.hit_matrix().mean() == pytest.approx(record.metrics["ulira.privacy/acc"])
    assert all(attacks[0].is_paired_with(other) for other in attacks)


def test_a_sweep_without_attack_has_no_figures_of_one(tmp_path, tracking_uri):
    spec = attack_spec(0, methods=["identity"])
    result = run_sweep(spec, toy_options(tmp_path, tracking_uri=tracking_uri))
    for record in result.records:
        assert record.attack == {}
        assert not [n for n in record.metrics if n.startswith(("ulira", "rmia", "mia.population"))]
    assert not (tmp_path / "out" / "attacks.jsonl").exists()
    assert not {"shadow", "margins", "ulira"} & {
        name.partition("/")[0] for name in artifacts(tmp_path / "store")
    }


def test_four_shadow_models_are_enough_for_rmia_only(tmp_path):
    done = carry_out(attack_spec(4, ulira={"klom": True}), tmp_path)
    assert not done.failed
    found = figures(done, "identity")
    assert 0 <= found["rmia/auc"] <= 1
    wrong = ("ulira.privacy", "ulira.efficacy", "klom")
    assert not [name for name in found if name.startswith(wrong)]


def test_without_validation_images_rmia_compares_with_test_images(tmp_path):
    done = carry_out(attack_spec(4, validation_fraction=0), tmp_path)
    assert not done.failed
    assert 0 <= figures(done, "identity")["rmia/auc"] <= 1


def test_figures_do_not_depend_on_processes(tmp_path):
    spec = attack_spec(6)
    here, there = (carry_out(spec, tmp_path / str(n), workers=n) for n in (0, 2))
    assert not here.failed
    assert not there.failed
    for method in ("identity", "retrain"):
        assert figures(here, method) == figures(there, method)
        key = attack_on(here, method).key
        arrays = [tensors_of(d.store, "ulira", key) for d in (here, there)]
        for name, array in arrays[0].items():
            np.testing.assert_array_equal(arrays[1][name], array)


# --- exit codes ---------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "attacked.toml").write_text(SWEEP)
    return tmp_path


def run(*args):
    return call("run", "attacked.toml", "--workers", 0, "--device", "cpu", *args)


@pytest.mark.parametrize(("mood", "code"), [("raise", 1), ("decline", 0)])
def test_an_attack_that_fails_ends_with_1_and_one_that_is_declined_with_0(folder, mood, code):
    (folder / "attacked.toml").write_text(
        SWEEP.replace(
            'methods = ["finetune[epochs=1]"]',
            f'methods = [{{name = "moody", mood = "{mood}", training_size = 80}}]',
        )
    )
    result = run()
    assert result.exit_code == code, result.stderr
    said = [line for line in result.stderr.splitlines() if line.startswith("failed: ")]
    assert bool(said) == (mood == "raise")  # once for every job
    assert all("this one has no heart" in line for line in said)
    record = by_method(read_records(folder / "results/attacked"))["moody", mood, 0]
    assert record.status == "ok"
    assert {"raise": "no heart", "decline": "too shy"}[mood] in record.attack["reason"]


BAD = {
    "odd": (["--shadows", 7], "shadow models come in pairs"),
    "two": (["--shadows", 2], "shadow models come in pairs: give 0, or an even number from 4"),
    "small pool": (["--scenario", "random[count=1]"], "too few for U-LIRA with 6 shadow models"),
    "no retain": (["--scenario", "class[classes=[0,1,2,3]]"], "leaves the retain set empty"),
}


@pytest.mark.parametrize("which", BAD)
def test_bad_input_is_one_sentence_and_trains_nothing(folder, which):
    args, sentence = BAD[which]
    result = run(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.strip().splitlines()) == 1
    assert sentence in result.stderr
    assert not (folder / ".unlearnbench").exists()


TEXTS = {
    "shadows = 'many'": r"`ulira\.shadows` should be a valid integer.*; got 'many'",
    "shadows = -2": r"`ulira\.shadows` should be greater than or equal to 0; got -2",
    "shadow = 8": r"`\[ulira\]`: unknown key `shadow`; did you mean `shadows`\?",
    "variance = 'mine'": r"`ulira\.variance` .*'eb_t'.*; got 'mine'",
    "redraws = 3": r"`ulira\.redraws` should be greater than or equal to 20; got 3",
}


@pytest.mark.parametrize("line", TEXTS)
def test_bad_settings_are_told_by_name(tmp_path, line):
    path = tmp_path / "bad.toml"
    path.write_text(SWEEP.partition("[ulira]")[0] + f"[ulira]\n{line}\n")
    with pytest.raises(InputError, match=TEXTS[line]) as refused:
        read_sweep(path)
    assert len(refused.value.sentences) == 1


def test_bad_input_leaves_what_is_trained_as_it_is(folder):
    store = folder / ".unlearnbench"
    carry_out(read_sweep(folder / "attacked.toml"), store)
    before = artifacts(store)
    assert run("--shadows", 5).exit_code == 2
    assert run("--scenario", "random[count=1]").exit_code == 2
    assert artifacts(store) == before


def test_a_pool_to_balance_that_is_no_scenario_is_told(folder):
    (folder / "attacked.toml").write_text(SWEEP + 'stratify = ["randm[count=3]"]\n')
    result = run()
    assert result.exit_code == 2
    assert "unknown scenario `randm`; did you mean `random`?" in result.stderr
    assert not (folder / ".unlearnbench").exists()


def test_files_to_balance_are_sought_beside_the_sweep(tmp_path):
    folder = tmp_path / "there"
    folder.mkdir()
    data, _ = lay_out(attack_spec())
    ids = data[0].split.training[:8]
    (folder / "mine.txt").write_text("\n".join(map(str, ids)))
    text = SWEEP + 'stratify = ["ids[file=mine.txt]"]\n'
    (folder / "attacked.toml").write_text(text)
    bank = bank_of(lay_out(read_sweep(folder / "attacked.toml"))[1])
    assert bank.hash != bank_of(lay_out(attack_spec())[1]).hash


@pytest.mark.slow
def test_a_bank_that_is_killed_goes_on_and_ends_with_the_same_figures(folder):
    """T29, with a real signal and worker processes."""
    text = SWEEP.replace("epochs = 2", "epochs = 30")
    (folder / "attacked.toml").write_text(text)
    store = folder / ".unlearnbench"
    process = start("run", "attacked.toml", "--workers", 2, "--device", "cpu", cwd=folder)
    deadline = time.monotonic() + 120
    while not any(name.startswith("shadow/") for name in artifacts(store)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    survived = artifacts(store)
    assert sum(name.startswith("shadow/") for name in survived) < 6
    done = call("run", "attacked.toml", "--workers", 2, "--device", "cpu")
    assert done.exit_code == 0, done.stderr
    now = artifacts(store)
    assert {name: now[name] for name in survived} == survived
    fresh = carry_out(read_sweep(folder / "attacked.toml"), folder / "fresh")
    records = by_method(read_records(folder / "results/attacked"))
    for method in ("identity", "retrain", "finetune"):
        assert records[method, None, 0].metrics | figures(fresh, method) == (
            records[method, None, 0].metrics
        )


# --- the table on digits ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_table_on_digits_with_wrong_labels(tmp_path, capsys):
    """Section 2.7 of the evaluation specification, in miniature; bounds are standard errors."""
    rows = ["identity", "retrain", "retrain-again", "leaky-retrain", "finetune", "drawn-labels",
            "constant-output"]  # fmt: skip
    methods = ["retrain-again", "leaky-retrain", "finetune[epochs=2,lr=0.001]",
               "drawn-labels[lr=0.0003]", "constant-output"]  # fmt: skip
    spec = attack_spec(
        32, datasets=["digits[label_noise=0.08]"], models=[LEARNER], methods=methods,
        training=BY_HEART | {"epochs": 40, "batch_size": 32}, scenarios=["random[fraction=0.2]"],
        ulira={"redraws": 200},
    )  # fmt: skip
    began = time.monotonic()
    done = carry_out(spec, tmp_path, workers=2)
    assert not done.failed
    table = {name: figures(done, name) for name in rows}
    with capsys.disabled():
        _print(table, time.monotonic() - began)
    privacy = {name: row["ulira.privacy/acc"] for name, row in table.items()}
    se = {name: row["ulira.privacy/se"] for name, row in table.items()}
    # the original leaks, and unlearning briefly helps a little
    assert privacy["identity"] - 3 * se["identity"] > 0.5
    assert privacy["finetune"] - 3 * se["finetune"] > 0.5
    assert table["identity"]["ulira.privacy/p"] < 0.01
    # retrained models do not
    for name in ("retrain", "retrain-again"):
        low, high = (table[name][f"ulira.privacy/null_{end}"] for end in ("lo", "hi"))
        assert low - se[name] <= privacy[name] <= high + se[name]
    again = table["retrain-again"]
    assert abs(again["ulira.efficacy/acc"] - 0.5) < 3 * again["ulira.efficacy/null_sd"]
    # random labels are nearly harmless to one attacker for all, and plainly leak by example
    drawn = table["drawn-labels"]
    assert privacy["drawn-labels"] - 3 * se["drawn-labels"] > 0.5
    difference = drawn["ulira.privacy/auc"] - drawn["mia.population/auc"]
    assert difference > 3 * drawn["ulira.privacy/auc_se"]
    # a constant tells nothing, and is nothing like a retrained model
    assert privacy["constant-output"] == 0.5
    assert table["constant-output"]["ulira.efficacy/acc"] > 0.98
    # what a plug-in adds to the margins of retrained models is found as if added to them
    keep, attack = bank_of(done.plan).keep, attack_on(done, "leaky-retrain")
    raised = margins_after(done, "retrain") + keep[:, None].astype(np.float32)
    expected = ulira(raised, keep, attack.score.pool, redraws=0)
    spread = 3 * np.hypot(se["leaky-retrain"], expected.se)
    assert privacy["leaky-retrain"] == pytest.approx(expected.acc, abs=spread)
    assert privacy["leaky-retrain"] > 0.5 + 3 * se["leaky-retrain"]
    assert not [n for n in rows if "suspicion" in done.store.get(
        "ulira", attack_on(done, n).key).meta["attack"]]  # fmt: skip


def _print(table, seconds):
    print(f"\n{seconds:.0f} s")  # noqa: T201
    print(f"{'':16} privacy acc ± se      AUC   null band      population  efficacy")  # noqa: T201
    for name, row in table.items():
        privacy = {k.partition("/")[2]: v for k, v in row.items() if k.startswith("ulira.privacy")}
        print(  # noqa: T201
            f"{name:16} {privacy['acc']:.3f} ± {privacy['se']:.3f}      {privacy['auc']:.3f} "
            f"[{privacy['null_lo']:.3f}, {privacy['null_hi']:.3f}]     "
            f"{row['mia.population/auc']:.3f}     {row.get('ulira.efficacy/acc', np.nan):.3f}"
        )
