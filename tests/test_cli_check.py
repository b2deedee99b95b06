"""`unlearnbench check`: its table and its exit codes."""

from __future__ import annotations

import pytest

from unlearnbench.bench.testing import checks_of

from .commands import call, modules_loaded_by, plugins_forgotten, shell
from .test_contract import HEAD, METHOD


@pytest.fixture(autouse=True)
def _clean():
    with plugins_forgotten():
        yield


def rows(result):
    """Status by check; the last line of a plug-in is its sum."""
    lines = [line.split(maxsplit=3) for line in result.stdout.splitlines()]
    return {words[2]: (words[0], words[3]) for words in lines if len(words) == 4}


def test_a_dataset_that_keeps_the_contract_ends_with_0_and_a_sum():
    result = call("check", "synthetic")
    assert result.exit_code == 0
    expected = {c.name: ("passed", c.explanation) for c in checks_of("dataset")}
    assert {name: row for name, row in rows(result).items() if name in expected} == expected
    assert result.stdout.splitlines()[-1] == f"synthetic: {len(expected)} passed."


def test_known_failures_end_with_0_and_show_the_reason():
    result = call("check", "identity", "--check", "forgets", "--check", "kebab-name")
    assert result.exit_code == 0
    assert rows(result)["forgets"][0] == "known"
    assert rows(result)["forgets"][1].startswith("the control that changes nothing (choose")
    assert result.stdout.splitlines()[-1] == "identity: 1 passed, 1 known."


def test_a_failure_ends_with_1_and_says_what_to_change(tmp_path):
    body = (
        "    def finish(self, model, task):\n        print('hello')\n        return task.retain\n"
    )
    path = tmp_path / "peeking.py"
    path.write_text(HEAD + METHOD.format(cls="Peeking", name="peeking") + body)
    result = call("check", path, "--check", "declared-sets-only", "--check", "finite")
    assert result.exit_code == 1
    assert rows(result)["declared-sets-only"] == (
        "failed",
        'add "retain" to `needs`: on the convolutional net, forgetting a whole class it touches '
        "the retain set",
    )
    assert rows(result)["finite"] == ("skipped", "not run, see `declared-sets-only`")
    assert "hello" not in result.stdout


def test_bad_input_ends_with_2_and_one_sentence_each():
    assert call("check").exit_code == 2
    for arguments, words in [
        (["scrup"], "did you mean `scrub`"),
        (["identity", "--check", "finit"], "did you mean `finite`"),
        (["absent.py"], "does not exist"),
        (["identity", "--plugin", "absent.py"], "does not exist"),
    ]:
        result = call("check", *arguments)
        assert result.exit_code == 2
        assert words in result.stderr
        assert result.stderr.count("\n") == 1
        assert not result.stdout


def test_all_checks_can_be_listed():
    result = call("check", "--list")
    assert result.exit_code == 0
    for kind in ("method", "dataset"):
        for each in checks_of(kind):
            assert f"{each.name} " in result.stdout
            assert each.explanation in result.stdout
            assert each.explanation.endswith(".")


def test_help_loads_nothing_heavy(tmp_path):
    for command in ("check", "new-method"):
        loaded = modules_loaded_by(command, "--help", cwd=tmp_path)
        assert not loaded & {"torch", "timm", "jinja2", "pandas", "mlflow", "optuna"}


@pytest.mark.slow
def test_a_method_is_checked_from_a_shell_with_workers_of_its_own(tmp_path):
    done = shell("new-method", "my-way", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = shell("check", "my_way.py", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "failed" not in done.stdout
    assert done.stdout.splitlines()[-1].startswith("my-way: ")
