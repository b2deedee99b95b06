"""Records of several folders put together, and what is refused."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import pytest

from unlearnbench.bench.attack_record import AttackRecord
from unlearnbench.bench.bank_record import BankRecord
from unlearnbench.bench.cell_frame import cell_frame
from unlearnbench.bench.errors import InputError
from unlearnbench.bench.leaderboard import build
from unlearnbench.bench.merge import merge, read_sources
from unlearnbench.bench.merge_reasons import Source
from unlearnbench.bench.record import Record, read_records
from unlearnbench.bench.sweep_records import SweepRecords, read_folder, write_folder

from .commands import call
from .made_records import made_records

OTHER = {"hardware": "another machine", "torch": "2.15", "unlearnbench": "0.1"}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def changed(record, **changes):
    return Record.model_validate(record.model_dump(by_alias=True) | changes)


def every(records, **changes):
    return [changed(record, **changes) for record in records]


def source(name, records, banks=(), attacks=()):
    return Source(Path(name), SweepRecords(list(records), list(banks), list(attacks)))


def sentences(*sources):
    with pytest.raises(InputError) as error:
        merge(sources)
    return error.value.sentences


def halves(**options):
    """Two sweeps that share the references, each with methods of its own."""
    found = made_records(methods=4, **options)
    first = [r for r in found.records if r.method not in ("method-02", "method-03")]
    second = [r for r in found.records if r.method not in ("method-00", "method-01")]
    return found, first, second


# --- what belongs together ---------------------------------------------------------------------


def test_two_sweeps_give_the_leaderboard_of_one():
    found, first, second = halves(tasks=2)
    merged = merge([
        source("a", first, found.banks, found.attacks),
        source("b", second, found.banks, found.attacks),
    ])  # fmt: skip
    assert merged.found.banks == found.banks
    assert merged.found.attacks == found.attacks
    rows = build(*merged.found).frame().set_index(["scenario", "method"]).sort_index()
    whole = build(*found).frame().set_index(["scenario", "method"]).sort_index()
    assert rows.equals(whole[list(rows)])
    (note,) = merged.notes
    # identity and retrain, 2 seeds, 2 tasks
    assert note == (
        "8 cells are in `a` and in `b`; one record of each is kept: the first, or the one with "
        "more figures."
    )


def test_a_cell_that_both_hold_is_kept_once_and_the_first_of_it():
    records = made_records(methods=1, attacked=False).records
    again = every(records, environment=OTHER, sweep="again", times={"unlearn_s": 99.0})
    merged = merge([source("a", records), source("b", again)])
    assert merged.found.records == records
    assert merge([source("b", again), source("a", records)]).found.records == again


def test_of_a_cell_that_both_hold_the_attacked_one_is_kept():
    attacked = made_records(methods=1)
    records = [
        changed(r, attack={}, metrics={k: v for k, v in r.metrics.items() if "ulira" not in k})
        for r in attacked.records
    ]
    merged = merge([source("a", records), source("b", *attacked)])
    assert merged.found.records == attacked.records
    assert merged.found.attacks == attacked.attacks


def test_a_cell_that_failed_in_one_place_and_is_ok_in_the_other_is_ok_and_it_is_said():
    records = made_records(methods=1, attacked=False).records
    bad = {"status": "failed", "reason": "out of memory", "metrics": {}, "times": {}}
    failed = [changed(r, **bad) if r.method == "method-00" else r for r in records]
    for one, other in ((failed, records), (records, failed)):
        merged = merge([source("a", one), source("b", other)])
        assert {r.status for r in merged.found.records} == {"ok"}
        bad_folder = "a" if one is failed else "b"
        assert any(
            f"2 cells that are not ok in `{bad_folder}` are ok in" in n for n in merged.notes
        )
    both = merge([source("a", failed), source("b", failed)])
    assert sum(r.status == "failed" for r in both.found.records) == 2


@pytest.mark.parametrize("order", list(permutations("abc")))
def test_a_cell_that_never_ran_joins_its_key_whatever_the_order_of_folders(order):
    (ok,) = [r for r in made_records(methods=1, attacked=False).records
             if r.method == "method-00" and r.seed == 0]  # fmt: skip
    bad = {"status": "failed", "reason": "no memory", "metrics": {}, "times": {}}
    folders = {
        "a": changed(ok, hyperparameters={}, **bad),  # does not say its parameters
        "b": ok,
        "c": changed(ok, key="of other code"),
    }
    merged = merge([source(name, [folders[name]]) for name in order])
    (kept,) = merged.found.records
    assert kept.status == "ok"


def test_one_folder_is_as_it_is():
    found = made_records(methods=2)
    merged = merge([source("a", *found)])
    assert merged.found == found
    assert merged.notes == ()


def test_other_machines_and_versions_are_told_and_not_refused():
    _, first, second = halves(attacked=False)
    second = every(second, environment=OTHER | {"torch": "2.16", "unlearnbench": "0.2"})
    second = [r for r in second if r.method.startswith("method")]
    merged = merge([source("a", first), source("b", second)])
    text = "\n".join(merged.notes)
    assert "different versions of unlearnbench: 0.1 in `a`; 0.2 in `b`." in text
    assert "different versions of torch: 2.15 in `a`; 2.16 in `b`." in text
    assert "2 machines (a machine of two cores; another machine)" in text
    rows = build(*merged.found).tables[0].rows.set_index("method")
    assert list(rows.loc["method-02", ["hardware"]]) == ["another machine"]


def test_seeds_of_a_row_on_two_machines_have_no_time():
    records = made_records(methods=1, attacked=False).records
    first = [r for r in records if r.seed == 0]
    second = every([r for r in records if r.seed == 1], environment=OTHER)
    merged = merge([source("a", first), source("b", second)])
    rows = build(*merged.found).tables[0].rows.set_index("method")
    assert rows.loc["method-00", "n_ok"] == 2
    assert rows.loc["method-00", "unlearn_s_mean"] != rows.loc["method-00", "unlearn_s_mean"]
    assert rows.loc["method-00", "forget_acc_mean"] > 0


def test_recipes_that_were_trained_differently_are_rows_of_their_own():
    records = made_records(methods=1, attacked=False).records
    short = [changed(r, training={"epochs": 9, "lr": 0.1}) for r in records]
    long = [changed(r, training={"epochs": 20, "lr": 0.1}, key=f"{r.key} long") for r in records]
    merged = merge([source("a", short), source("b", long)])
    (table,) = build(*merged.found).tables
    assert table.recipes == ("plain[epochs=9]", "plain[epochs=20]")
    assert list(table.rows["n_ok"][table.rows["kind"] == "method"]) == [2, 2]
    assert any("the recipe plain of digits, resnet18 was trained in 2 ways" in n
               for n in merged.notes)  # fmt: skip


def test_a_setting_that_older_records_do_not_have_tells_variants_apart():
    """P = {9, none}, Q = {20, none}, R = {9}: what most have is not told, and R lacks it."""
    first = made_records(methods=1, attacked=False).records[0]
    trainings = [
        {"epochs": 9, "clip": None},
        {"epochs": 20, "clip": None},
        {"epochs": 9},
    ]
    cells = cell_frame([changed(first, training=t, key=str(t)) for t in trainings])
    assert list(cells["recipe"]) == ["plain", "plain[epochs=20]", "plain[clip=unknown]"]


# --- what does not -----------------------------------------------------------------------------


def test_a_cell_with_different_results_is_refused():
    records = made_records(methods=2, attacked=False).records
    other = [
        changed(r, metrics=r.metrics | {"forget_acc": 0.5}) if r.method == "method-01" else r
        for r in records
    ]
    (sentence,) = sentences(source("a", records), source("b", other))
    assert sentence.startswith("`a` and `b` hold 2 cells with different results (e.g. `method-01` ")
    assert "seed 0 of digits, resnet18, class[classes=[0]]: `forget_acc` 0.0" in sentence
    assert "a rerun gave something else" in sentence


def test_other_code_that_made_the_same_cell_is_refused():
    records = made_records(methods=1, attacked=False).records
    other = [
        changed(r, key=f"{r.key} cuda", metrics=r.metrics | {"test_acc": 0.1}) for r in records
    ]
    (sentence,) = sentences(source("a", records), source("b", other))
    assert "hold 6 cells with different results" in sentence
    assert "other code or another kind of device" in sentence
    same = [changed(r, key=f"{r.key} cuda") for r in records]
    merged = merge([source("a", records), source("b", same)])
    assert merged.found.records == records


def test_one_name_for_two_data_sets_is_refused():
    _, first, second = halves(attacked=False)
    first, second = every(first, data_digest="a" * 32), every(second, data_digest="b" * 32)
    (sentence,) = sentences(source("a", first), source("b", second))
    assert sentence == (
        "the images of dataset `digits` are not the same everywhere: aaaaaaaaaaaa… in `a` and "
        "bbbbbbbbbbbb… in `b`; what was measured on them cannot be compared."
    )
    # records of before the digest was noted say nothing
    assert merge([source("a", first), source("b", every(second, data_digest=""))])


def test_one_name_for_two_files_of_weights_is_refused():
    _, first, second = halves(attacked=False)
    named = [
        every(records, model_info={"weights": {"name": "w.safetensors", "digest": digest * 32}})
        for records, digest in ((first, "a"), (second, "b"))
    ]
    (sentence,) = sentences(source("a", named[0]), source("b", named[1]))
    assert "the weights of model `resnet18` are not the same everywhere" in sentence


def test_shadow_models_that_were_trained_twice_and_not_alike_are_refused():
    found, first, second = halves()
    attacks = [
        AttackRecord.model_validate(a.model_dump(by_alias=True) | {"pool": "other"})
        for a in found.attacks
    ]
    banks = [b.model_copy(update={"metrics": {"acc/in_mean": 0.5, "time/training_s": 1.0}})
             for b in found.banks]  # fmt: skip
    problems = sentences(
        source("a", first, found.banks, found.attacks), source("b", second, banks, attacks)
    )
    assert len(problems) == 2
    assert "1 shadow bank of the same name and different results" in problems[0]
    assert "6 attacks of the same name and different results" in problems[1]
    timed = [BankRecord.model_validate(b.model_dump(by_alias=True)
                                       | {"metrics": {"time/training_s": 2.0}})
             for b in found.banks]  # fmt: skip
    assert merge([source("a", first, found.banks), source("b", second, timed)])


def test_all_reasons_are_told_together():
    _, first, second = halves(attacked=False)
    first = every(first, data_digest="a")
    second = [
        changed(r, data_digest="b", metrics=r.metrics | {"test_acc": 0.0}) for r in every(second)
    ]
    assert len(sentences(source("a", first), source("b", second))) == 2


# --- the command -------------------------------------------------------------------------------


def written(name, found):
    write_folder(Path(name), found)
    return Path(name)


def tree(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.fixture
def two():
    found, first, second = halves()
    written("a", found._replace(records=first))
    written("b", found._replace(records=every(second, sweep="second")))


def test_the_command_writes_records_and_leaderboard_into_a_folder_of_its_own(two):
    before = tree("a") | tree("b")
    result = call("leaderboard", "a", "b", "--figures", "none")
    assert result.exit_code == 0, result.stderr
    assert "Leaderboard: results/merged/leaderboard.html" in result.stdout
    assert "Note: 4 cells are in `a` and in `b`" in result.stderr
    assert tree("a") | tree("b") == before
    names = {path.name for path in Path("results/merged").iterdir()}
    assert {"records.jsonl", "banks.jsonl", "attacks.jsonl", "leaderboard.tex"} <= names
    assert len(read_folder(Path("results/merged")).records) == 12
    again = tree("results/merged")
    assert call("leaderboard", "a", "b", "--figures", "none").exit_code == 0
    assert tree("results/merged") == again


def test_one_folder_can_be_rendered_into_another(two):
    result = call("leaderboard", "a", "--out", "c", "--figures", "none")
    assert result.exit_code == 0
    assert read_records(Path("c")) == read_records(Path("a"))
    assert not (Path("a") / "leaderboard.md").exists()
    assert call("leaderboard", "a", "--figures", "none").exit_code == 0
    assert (Path("a") / "leaderboard.md").read_bytes() == (Path("c/leaderboard.md")).read_bytes()


def refused(*args):
    before = tree(".")
    result = call(*args)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert tree(".") == before
    lines = result.stderr.splitlines()
    assert lines
    assert all(line.startswith("Error: ") and line.endswith(".") for line in lines)
    return [line.removeprefix("Error: ") for line in lines]


def test_records_of_an_input_are_never_overwritten(two):
    (sentence,) = refused("leaderboard", "a", "b", "--out", "a")
    assert sentence == (
        "`a` is one of the folders to read, whose records stay as they are; name another with "
        "`--out`."
    )


def test_records_that_lie_in_the_output_folder_are_not_lost(two):
    written("c", made_records(methods=2, tasks=2))
    (sentence,) = refused("leaderboard", "a", "b", "--out", "c")
    assert "`c` holds records of 8 cells that are not among those to write" in sentence


@pytest.mark.parametrize("has_records", [True, False])
def test_attacks_banks_and_figures_that_lie_in_the_output_folder_are_not_lost(two, has_records):
    found = made_records(methods=1)
    plain = made_records(methods=1, attacked=False).records
    written("p", SweepRecords(plain, [], []))
    for name, held, said in (
        ("figures", found._replace(attacks=[], banks=[]), "figures of 6 cells"),
        ("attacks", SweepRecords(plain, [], found.attacks), "3 attacks"),
        ("banks", SweepRecords(plain, found.banks, []), "1 shadow banks"),
    ):
        written(name, held)
        if not has_records and name == "figures":
            continue
        if not has_records:
            (Path(name) / "records.jsonl").unlink()
        (sentence,) = refused("leaderboard", "p", "--out", name)
        assert sentence == (
            f"`{name}` holds {said} that are not among those to write, and would lose them; name "
            "another folder."
        )
    assert call("leaderboard", "p", "--out", "p2", "--figures", "none").exit_code == 0
    written("full", found)  # more figures than lie there are no loss
    assert call("leaderboard", "full", "--out", "p2", "--figures", "none").exit_code == 0
    assert read_folder(Path("p2")) == found


def test_folders_that_are_the_same_are_refused(two):
    Path("link").symlink_to("a")
    for pair in (("a", "a"), ("a", "./a"), ("a", "link")):
        (sentence,) = refused("leaderboard", *pair)
        assert "are the same folder; name it once." in sentence


def test_everything_that_is_wrong_with_the_folders_is_told_together(two):
    for name, content in {"empty": "", "junk": "no json\n", "newer": ""}.items():
        Path(name).mkdir()
        (Path(name) / "records.jsonl").write_text(content)
    line = json.loads((Path("a") / "records.jsonl").read_text().splitlines()[0])
    newer = json.dumps(line | {"schema": "unlearnbench.record/2"})
    (Path("newer") / "records.jsonl").write_text(f"{json.dumps(line)}\n{newer}\n{newer}\n")
    said = refused("leaderboard", "a", "absent", "empty", "junk", "newer")
    assert said[0] == "there are no records at `absent`; run a sweep first."
    assert said[1] == "`empty/records.jsonl` holds no records."
    assert said[2].startswith("`junk/records.jsonl` line 1 is not a valid record: ")
    assert said[3].startswith(
        "`newer/records.jsonl` holds records of the layout `unlearnbench.record/2` (2 lines)"
    )
    assert len(said) == 4


def test_a_folder_of_another_layout_is_one_sentence_alone_too(two):
    line = json.loads((Path("a") / "records.jsonl").read_text().splitlines()[0])
    newer = json.dumps(line | {"schema": "unlearnbench.record/2"})
    (Path("a") / "records.jsonl").write_text(f"{newer}\n" * 3)
    (sentence,) = refused("leaderboard", "a")
    assert "`unlearnbench.record/2` (3 lines)" in sentence


def test_several_folders_and_mlflow_do_not_go_together(two):
    said = refused("leaderboard", "a", "b", "--from-mlflow", "sqlite:///x.db", "--experiment", "x")
    assert said == ["with `--from-mlflow`, one folder says where the leaderboard goes."]


def test_sources_are_read_once_each_and_in_order(two):
    assert [s.folder for s in read_sources([Path("b"), Path("a")])] == [Path("b"), Path("a")]
