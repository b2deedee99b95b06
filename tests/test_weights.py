"""Checkpoints as originals: files, heads, keys, and sweeps that train little or nothing."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from unlearnbench.bench import METHODS, InputError
from unlearnbench.bench.evaluate import accuracy
from unlearnbench.bench.job_keys import TRAINING_VERSION, original_job
from unlearnbench.bench.jobs import WorkerSettings
from unlearnbench.bench.keys import content_key
from unlearnbench.bench.models import build_model, describe_model
from unlearnbench.bench.modelspec import create_model_spec
from unlearnbench.bench.plan import LoadedData, make_plan
from unlearnbench.bench.recipe import Recipe, TrainingSettings
from unlearnbench.bench.record import Record, read_records
from unlearnbench.bench.runner import run_sweep
from unlearnbench.bench.scenario import split_validation
from unlearnbench.bench.store import Store
from unlearnbench.bench.sweep import SweepSpec, read_sweep, resolve
from unlearnbench.bench.tablecell import NONE
from unlearnbench.bench.terminal import terminal_table
from unlearnbench.bench.workbench import Workbench

from .commands import call
from .toys import NARROW, fresh, same_tensors, toy_images, toy_options, toy_spec, toy_task, trained

DATASET = "synthetic[classes=4,size=8,channels=1,train_per_class=30,test_per_class=15,seed=1]"
VIT = "vit_tiny_patch16_224[depth=2,embed_dim=24,num_heads=3]"


def with_weights(file, model=NARROW, **params):
    """`model` as a spec that starts from a file."""
    extra = "".join(f",{key}={value}" for key, value in params.items())
    return f'{model[:-1]},weights="{file}"{extra}]'


def start(spec, classes=4, shape=(1, 8, 8), seed=9):
    return build_model(create_model_spec(spec), classes, shape, seed)


def one_sentence(caught):
    (sentence,) = caught.value.sentences
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


@pytest.fixture
def file(tmp_path):
    """Weights of the trained toy network."""
    path = tmp_path / "toy.safetensors"
    save_file(trained().state_dict(), path)
    return path


# --- files ----------------------------------------------------------------------------------------


def write_safetensors(state, path):
    save_file(state, path)


def write_wrapped(state, path):
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": t for k, t in state.items()}}, path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.safetensors", write_safetensors),
        ("a.pth", torch.save),
        ("a.bin", torch.save),
        ("a.pt", write_wrapped),
    ],
)
def test_weights_come_back_from_every_kind_of_file(tmp_path, name, write):
    write(trained().state_dict(), tmp_path / name)
    assert same_tensors(start(with_weights(tmp_path / name)), trained())


def test_half_precision_becomes_single(tmp_path):
    state = {k: t.half() if t.is_floating_point() else t for k, t in fresh().state_dict().items()}
    save_file(state, tmp_path / "half.safetensors")
    model = start(with_weights(tmp_path / "half.safetensors"))
    assert {t.dtype for t in model.parameters()} == {torch.float32}
    assert torch.equal(model.fc.weight, state["fc.weight"].float())


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "exploded",)

    (tmp_path / "bomb.pth").write_bytes(pickle.dumps(Bomb(), protocol=2))
    torch.save(fresh(), tmp_path / "whole.pth")  # a module, not its tensors
    for name in ("bomb.pth", "whole.pth"):
        with pytest.raises(InputError, match="refused: it is no torch file, or holds more") as got:
            start(with_weights(tmp_path / name))
        assert name in one_sentence(got)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["junk.safetensors", "junk.pth", "empty.safetensors", "empty.pth"])
def test_a_damaged_file_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"" if name.startswith("empty") else b"no weights at all")
    problem = rf"weights file `.*{name}` (cannot be read|is refused)"
    with pytest.raises(InputError, match=problem) as caught:
        start(with_weights(tmp_path / name))
    one_sentence(caught)


def test_a_file_without_named_tensors_is_refused(tmp_path):
    torch.save({"epoch": 3, "lr": 0.1}, tmp_path / "log.pth")
    with pytest.raises(InputError, match="does not hold tensors by name"):
        start(with_weights(tmp_path / "log.pth"))


def test_a_missing_file_and_a_wrong_value_are_told_at_once(tmp_path):
    with pytest.raises(InputError, match=r"weights file `.*none.pth` does not exist") as caught:
        create_model_spec(with_weights(tmp_path / "none.pth"))
    one_sentence(caught)
    with pytest.raises(InputError, match="`weights` must be a file or timm; got True"):
        create_model_spec("resnet18[weights=true]")


# --- what fits ------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [NARROW, VIT, "mobilenetv3_small_050"])
def test_a_head_of_another_width_stays_initialised_and_all_else_is_loaded(tmp_path, model):
    shape = (1, 32, 32)
    source = start(model, 7, shape, seed=1)
    save_file(source.state_dict(), tmp_path / "seven.safetensors")
    bracketed = model if model.endswith("]") else f"{model}[drop_rate=0]"
    weighted = with_weights(tmp_path / "seven.safetensors", bracketed, stem="small")
    ours, plain = start(weighted, 4, shape), start(f"{bracketed[:-1]},stem=small]", 4, shape)
    head = {k for k in ours.state_dict() if k.startswith(("fc.", "head.", "classifier."))}
    assert len(head) == 2
    for name, tensor in ours.state_dict().items():
        expected = plain if name in head else source
        assert torch.equal(tensor, expected.state_dict()[name]), name


def test_keys_that_do_not_match_are_named_three_at_most(tmp_path, file):
    state = trained().state_dict()
    gone = [k for k in state if k.startswith("layer1")]
    cut = {k: t for k, t in state.items() if k not in gone} | {"extra.weight": torch.zeros(1)}
    save_file(cut, tmp_path / "cut.safetensors")
    with pytest.raises(InputError) as caught:
        start(with_weights(tmp_path / "cut.safetensors"))
    sentence = one_sentence(caught)
    assert "`cut.safetensors` do not fit" in sentence
    gone = sorted(k for k in gone if not k.endswith("num_batches_tracked"))  # may be absent
    named = ", ".join(f"`{key}`" for key in gone[:3])
    assert f"they lack {named} and {len(gone) - 3} more" in sentence
    assert gone[3] not in sentence
    assert "they have `extra.weight`" in sentence


def test_a_tensor_of_another_shape_is_named_even_in_the_head(tmp_path):
    state = trained().state_dict()
    for key in ("layer1.0.conv1.weight", "fc.weight"):
        save_file(state | {key: torch.zeros(4, 5)}, tmp_path / "bad.safetensors")
        with pytest.raises(InputError, match=f"of another shape are `{key}`"):
            start(with_weights(tmp_path / "bad.safetensors"))


# --- stems ----------------------------------------------------------------------------------------


def first(model):
    return next(m for m in model.modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize(("made", "kernel"), [("own", (7, 7)), ("small", (3, 3))])
def test_weights_decide_the_stem_of_a_small_image(tmp_path, made, kernel):
    resnet = "resnet18[layers=[1,1,1,1],channels=[8,8,16,16]"
    source = start(f"{resnet},stem={made}]", shape=(3, 32, 32))
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    spec = create_model_spec(with_weights(tmp_path / "w.safetensors", f"{resnet}]"))
    model = build_model(spec, 4, (3, 32, 32), 0)
    assert first(model).kernel_size == kernel
    assert same_tensors(model, source)
    assert describe_model(spec, model, (3, 32, 32)).stem == made
    again = build_model(
        spec.as_built(made), 4, (3, 32, 32), 0
    )  # as a worker does, without the file
    again.load_state_dict(model.state_dict())
    image = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again.eval()(image), model.eval()(image))


def test_where_both_stems_fit_the_architecture_keeps_its_own_unless_told(tmp_path):
    # 3x3 of stride 2 and 3x3 of stride 1 have the same tensors
    name = "mobilenetv3_small_050[drop_rate=0]"
    save_file(start(name, shape=(3, 32, 32)).state_dict(), tmp_path / "w.safetensors")
    for how, stride in (({}, (2, 2)), ({"stem": "small"}, (1, 1))):
        spec = with_weights(tmp_path / "w.safetensors", name, **how)
        assert first(start(spec, shape=(3, 32, 32))).stride == stride


# --- timm's own -----------------------------------------------------------------------------------


@pytest.fixture
def offline(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_without_network_timms_weights_are_one_clear_sentence(offline, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        InputError, match=r"cannot be downloaded .*`weights=FILE` instead"
    ) as caught:
        start("vit_tiny_patch16_224[weights=timm]", 10, (3, 224, 224))
    assert "vit_tiny_patch16_224" in one_sentence(caught)


def test_an_architecture_without_pretrained_weights_is_refused():
    with pytest.raises(
        InputError, match="timm has no pretrained weights for the model `efficientnet_b8`"
    ):
        start("efficientnet_b8[weights=timm]", 10, (3, 64, 64))
    with pytest.raises(InputError, match="leave out `stem=small`"):
        start("resnet18[stem=small,weights=timm]", 10, (3, 64, 64))


def test_timms_weights_are_asked_of_timm(monkeypatch):
    import timm

    asked = []
    create = timm.create_model

    def note(name, pretrained=False, **kwargs):
        asked.append((name, pretrained))
        return create(name, pretrained=False, **kwargs)

    monkeypatch.setattr(timm, "create_model", note)
    start("resnet18[weights=timm]", 10, (3, 64, 64))
    assert asked[-1] == ("resnet18", True)
    assert str(create_model_spec("resnet18[weights=timm]")) == "resnet18[weights=timm]"


# --- labels, keys, files of a sweep ---------------------------------------------------------------


def key_of(spec, seed=0):
    recipe = Recipe("plain", TrainingSettings(epochs=2))
    return original_job(toy_images(), 0.1, create_model_spec(spec), recipe, seed).key


def test_the_content_of_the_file_is_in_the_key_and_its_place_is_not(tmp_path, file):
    elsewhere = tmp_path / "other" / "renamed.safetensors"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(file.read_bytes())
    changed = tmp_path / "changed.safetensors"
    save_file(fresh().state_dict(), changed)
    assert key_of(with_weights(file)) == key_of(with_weights(elsewhere))
    assert key_of(with_weights(file)) != key_of(with_weights(changed))
    assert key_of(with_weights(file)) != key_of(NARROW)
    assert key_of("resnet18[weights=timm]") != key_of("resnet18")


def test_keys_without_weights_are_what_they_were():
    spec, recipe = create_model_spec(NARROW), Recipe("plain", TrainingSettings(epochs=2))
    assert key_of(NARROW) == content_key(
        "original",
        validation_fraction=0.1,
        seed=0,
        version=TRAINING_VERSION,
        data=toy_images().digest,
        model=[spec.name, dict(spec.kwargs), "auto"],
        recipe=recipe.describe(),
    )


def test_a_label_shows_the_name_of_the_file(file):
    assert str(create_model_spec(with_weights(file))).endswith(",weights=toy.safetensors]")


def test_a_file_is_sought_beside_the_sweep_file_that_names_it(tmp_path, file, monkeypatch):
    sweep = tmp_path / "sweep.toml"
    beside = with_weights("toy.safetensors")
    sweep.write_text(
        f"datasets = ['{DATASET}']\nmodels = ['{beside}', {{name = 'resnet18', weights = 'timm'}},"
        f" 'resnet18']\nscenarios = ['class']\nmethods = ['identity']\n"
    )
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    models = resolve(read_sweep(sweep)).models
    assert [m.weights and m.weights.name for m in models] == ["toy.safetensors", "timm", None]
    with pytest.raises(InputError, match="does not exist"):  # relative to the current folder
        resolve(read_sweep(sweep, {"models": [beside]}))


def test_two_files_of_one_name_are_refused_in_one_sweep(tmp_path, file):
    other = tmp_path / "other" / file.name
    other.parent.mkdir()
    save_file(fresh().state_dict(), other)
    models = [with_weights(file), with_weights(other)]
    with pytest.raises(InputError, match=r"two models would both be called .*rename one") as caught:
        resolve(toy_spec(models=models))
    one_sentence(caught)
    other.write_bytes(file.read_bytes())
    assert len(resolve(toy_spec(models=models)).models) == 2


# --- sweeps ---------------------------------------------------------------------------------------


def sweep(file, **changes) -> SweepSpec:
    fields = {"datasets": [DATASET], "models": [with_weights(file)]} | changes
    return toy_spec(**fields)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """A sweep of a checkpoint: its file, its result and its folder."""
    folder = tmp_path_factory.mktemp("untrained")
    file = folder / "toy.safetensors"
    save_file(trained().state_dict(), file)
    spec = sweep(
        file,
        training={"epochs": 0, "batch_size": 32},
        methods=["head-mask", "svd", "osp", "finetune"],
        seeds=[0, 1],
    )
    return file, run_sweep(spec, toy_options(folder)), folder


def of(result, method) -> list[Record]:
    return [record for record in result.records if record.method == method]


def test_the_original_of_no_epochs_is_the_checkpoint_bit_for_bit(untrained):
    file, result, _ = untrained
    task = toy_task(METHODS.create("svd"), needs=frozenset({"forget", "retain", "validation"}))
    model = start(with_weights(file)).eval()
    for record in of(result, "identity"):
        assert record.metrics["forget_acc"] == accuracy(model, task.forget)
        assert record.metrics["retain_acc"] == accuracy(model, task.retain)
        assert record.metrics["val_acc"] == accuracy(model, task.validation)
        assert record.times["original_s"] == 0
        assert record.model_info["weights"]["name"] == "toy.safetensors"
        assert record.training["epochs"] == 0
    assert len(of(result, "identity")) == 2


def test_nothing_can_be_retrained_and_every_method_runs_without_gaps(untrained):
    _, result, _ = untrained
    for record in of(result, "retrain"):
        assert record.status == "skipped"
        assert "the original was not trained here" in record.reason
    methods = ("identity", "head-mask", "svd", "osp", "finetune")
    for record in [record for method in methods for record in of(result, method)]:
        assert record.status == "ok"
        assert record.recipe == "plain"  # also for osp: no penalty was ever trained
        assert not [name for name in record.metrics if name.startswith("gap_") or name == "tow"]
        assert not {"speedup", "retrain_s"} & record.times.keys()
    assert all(record.metrics["forget_acc"] == 0 for record in of(result, "head-mask"))


def test_leaderboard_terminal_and_tracking_cope_without_a_retrained_model(untrained):
    _, result, folder = untrained
    assert result.tracked
    text = terminal_table(result.records)
    retrained = next(line for line in text.splitlines() if line.startswith("retrained "))
    assert set(retrained.removeprefix("retrained").split()) == {"0/2", NONE}
    assert "not applicable: retrained (seeds 0, 1): the original was not trained here" in text
    assert "nothing was trained here" in " ".join(text.split())
    markdown = (folder / "out" / "leaderboard.md").read_text()
    assert "-speed.svg" not in markdown  # nothing has a speed-up
    assert "the checkpoint `toy.safetensors` (sha256 " in markdown
    rows = [line for line in markdown.splitlines() if line.startswith("| **retrained")]
    assert len(rows) == 2  # and its other seed
    assert all("| not applicable" in row for row in rows)
    assert (folder / "out" / "leaderboard.html").is_file()


def test_a_checkpoint_sweep_again_does_nothing(untrained):
    file, result, folder = untrained
    spec = sweep(
        file, training={"epochs": 0, "batch_size": 32},
        methods=["head-mask", "svd", "osp", "finetune"], seeds=[0, 1],
    )  # fmt: skip
    again = run_sweep(spec, toy_options(folder))
    assert again.summary["jobs"] == 0
    assert again.records == result.records


def test_originals_retrained_and_shadow_models_start_from_the_weights(tmp_path, file):
    # one tiny step of plain descent: everything stays near the checkpoint, none of it is equal
    training = {"epochs": 1, "batch_size": 128, "lr": 1e-6, "warmup_frac": 0, "augment": False}
    spec = sweep(file, training=training, ulira={"shadows": 4}, methods=["identity"])
    options = toy_options(tmp_path)
    result = run_sweep(spec, options)
    assert {record.status for record in result.records} == {"ok"}
    assert all("gap_test_acc" in record.metrics for record in result.records)
    assert "retrained model has seen it as well" in " ".join(terminal_table(result.records).split())
    stored = [*options.store.glob("artifacts/original/*/*/*.safetensors"),
              *options.store.glob("artifacts/shadow/*/*/*.safetensors"),
              *options.store.glob("artifacts/cell/*/*/*.safetensors")]  # fmt: skip
    assert len(stored) == 1 + 4 + 2
    for path in stored:
        held, came = load_file(path), trained().state_dict()
        assert not all(torch.equal(held[k], came[k]) for k in came)
        for name, parameter in trained().named_parameters():
            assert torch.allclose(held[name], parameter, atol=1e-3), name


def test_a_fresh_model_of_a_task_starts_from_the_weights(file):
    task = toy_task(METHODS.create("retrain"), model=with_weights(file))
    assert same_tensors(task.fresh_model(), trained())


def test_the_store_is_enough_once_an_original_is_there(tmp_path, file):
    spec = sweep(file, training={"epochs": 0})
    options = toy_options(tmp_path)
    run_sweep(spec, options)
    images = toy_images()
    loaded = LoadedData(resolve(spec).datasets[0], images, split_validation(images, 0.1))
    (job, *_) = [cell.job for cell in make_plan(resolve(spec), [loaded], "cpu").cells]
    file.unlink()
    settings = WorkerSettings(str(options.store), (), 1, "cpu")
    assert same_tensors(Workbench(Store(options.store), job, settings, images).original, trained())


def test_a_small_vision_transformer_runs_from_its_weights(tmp_path):
    path = tmp_path / "vit.safetensors"
    save_file(start(VIT, seed=2).state_dict(), path)
    spec = sweep(path, models=[with_weights(path, VIT)], training={"epochs": 0},
                 methods=["svd", "head-mask"])  # fmt: skip
    result = run_sweep(spec, toy_options(tmp_path))
    assert [r.status for r in result.records] == ["ok", "skipped", "ok", "ok"]
    assert result.records[0].model_info["stem"] == "small"  # of the two, the one that fits


# --- what no epochs do not allow ------------------------------------------------------------------


def refused(spec):
    with pytest.raises(InputError) as caught:
        resolve(spec)
    return one_sentence(caught)


def test_no_epochs_need_weights(file):
    sentence = refused(toy_spec(training={"epochs": 0}))
    assert "`training.epochs` is 0" in sentence
    assert "has no weights to start from" in sentence


def test_no_epochs_and_shadow_models_exclude_each_other(file):
    sentence = refused(sweep(file, training={"epochs": 0}, ulira={"shadows": 4}))
    assert "U-LIRA asks for 4" in sentence
    assert "--shadows 0" in sentence


def test_no_epochs_make_no_recipe_with_a_penalty(file):
    sentence = refused(sweep(file, training={"epochs": 0}, recipes=["orthogonal"]))
    assert "the recipe `orthogonal` would do nothing" in sentence


def test_no_epochs_need_a_classifier_of_the_right_width(tmp_path):
    path = tmp_path / "seven.safetensors"
    save_file(start(NARROW, 7).state_dict(), path)
    with pytest.raises(InputError, match="no classifier for the 4 classes") as caught:
        run_sweep(sweep(path, training={"epochs": 0}), toy_options(tmp_path))
    one_sentence(caught)


def test_weights_that_do_not_fit_are_told_before_anything_is_trained(tmp_path, file):
    other = "resnet18[layers=[1,1,1,1],channels=[8,8,8,8],stem_type=deep,stem_width=8]"
    with pytest.raises(InputError, match="do not fit"):
        run_sweep(sweep(file, models=[with_weights(file, other)]), toy_options(tmp_path))
    assert not (tmp_path / "store").exists()


def test_the_command_line_takes_no_epochs(tmp_path, file, monkeypatch):
    monkeypatch.chdir(tmp_path)
    common = ["--dataset", DATASET, "--scenario", "class", "--method", "head-mask", "--seeds", "1",
              "--epochs", "0", "--shadows", "0", "--device", "cpu"]  # fmt: skip
    bad = call("plan", *common, "--model", NARROW)
    assert bad.exit_code == 2
    assert bad.stderr.count("Error:") == 1
    good = call("plan", *common, "--model", with_weights("toy.safetensors"))
    assert good.exit_code == 0, good.stderr
    assert "Would train nothing (0 epochs: originals are the weights as given)" in good.stdout
    done = call("run", *common, "--model", with_weights("toy.safetensors"), "--workers", "0")
    assert done.exit_code == 0, done.stderr
    (out,) = (tmp_path / "results").iterdir()
    assert [r.status for r in read_records(out)] == ["ok", "skipped", "ok"]


def test_old_checkpoints_without_counters_of_batches_are_taken(tmp_path):
    state = {k: t for k, t in trained().state_dict().items() if "num_batches" not in k}
    save_file(state, tmp_path / "old.safetensors")
    model = start(with_weights(tmp_path / "old.safetensors"))
    assert all(torch.equal(model.state_dict()[k], t) for k, t in state.items())


def test_weights_that_changed_since_they_were_named_are_refused(file):
    spec = create_model_spec(with_weights(file))
    save_file(fresh().state_dict(), file)
    with pytest.raises(InputError, match="has changed since the sweep was planned; run it again"):
        build_model(spec, 4, (1, 8, 8), 0)


def test_probes_of_a_checkpoint_compare_with_untrained_models(file, tmp_path):
    """ZRF of a checkpoint is 1 less its divergence from a random network, not from itself."""
    spec = sweep(file, training={"epochs": 0, "batch_size": 32}, methods=["identity"],
                 probes=["divergence"])  # fmt: skip
    result = run_sweep(spec, toy_options(tmp_path))
    identity = next(r for r in result.records if r.method == "identity")
    assert 0.4 < identity.metrics["zrf"] < 0.95
