"""The training loop: schedule, clipping, norms, precision, penalties, divergence."""

from __future__ import annotations

import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from unlearnbench.bench import METHODS, DivergedError, ImageData, Unlearner
from unlearnbench.bench.batches import ExampleSet, Pixels
from unlearnbench.bench.evaluate import accuracy
from unlearnbench.bench.recipe import Recipe, TrainingSettings
from unlearnbench.bench.training import (
    check_finite,
    cross_entropy,
    fit,
    make_optimizer,
    train_recipe,
)

from .toys import CPU, NARROW, SETTINGS, fresh, same_tensors, toy_data, toy_images, toy_recipe


def examples(n=40, *, batch_size=8, seed=0):
    """The first training images of the toy data."""
    data = toy_data()
    rng = torch.Generator().manual_seed(seed)
    return ExampleSet("training", Pixels(data.images, "train", CPU), data.split.training[:n],
                      batch_size, rng, {})  # fmt: skip


def linear(seed=0):
    """A linear network on the toy images."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 4))


def sgd(model, lr=0.1, momentum=0.0, weight_decay=0.0):
    return make_optimizer(model, name="sgd", lr=lr, momentum=momentum, weight_decay=weight_decay)


def noted_step_sizes(optimizer):
    """A list that grows by the step size of every step."""
    noted = []
    optimizer.register_step_pre_hook(
        lambda opt, *_: noted.append([group["lr"] for group in opt.param_groups])
    )
    return noted


# --- optimisers -----------------------------------------------------------------------------------


def test_sgd_is_nesterov_with_momentum_and_plain_without():
    group = sgd(linear(), lr=0.3, momentum=0.9, weight_decay=0.01).param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.3, 0.9, 0.01)
    assert group["nesterov"]
    assert not sgd(linear()).param_groups[0]["nesterov"]


def test_adamw_takes_step_size_and_decay():
    optimizer = make_optimizer(linear(), name="adamw", lr=0.3, momentum=0.9, weight_decay=0.01)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.param_groups[0]["lr"] == 0.3
    assert optimizer.param_groups[0]["weight_decay"] == 0.01


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_undecayed_parameters_stay_where_they_have_no_gradient(name):
    model = linear()
    weight, bias = (p.detach().clone() for p in model[1].parameters())
    optimizer = make_optimizer(
        model, name=name, lr=0.5, momentum=0.0, weight_decay=0.1, undecayed=[model[1].weight]
    )
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.equal(model[1].weight, weight)
    torch.testing.assert_close(model[1].bias, bias * (1 - 0.5 * 0.1))


def test_frozen_parameters_are_not_optimised():
    model = linear()
    model[1].bias.requires_grad_(False)
    assert sgd(model).param_groups[0]["params"] == [model[1].weight]


# --- schedule -------------------------------------------------------------------------------------


def test_cosine_after_a_linear_warmup_at_every_step():
    model = linear()
    optimizer = sgd(model, lr=0.8)
    noted = noted_step_sizes(optimizer)
    fit(model, examples(40), optimizer, epochs=2, loss=cross_entropy(), schedule="cosine",
        warmup_frac=0.2)  # fmt: skip
    # ten steps, two of them warm-up: thirds of the peak, then half a cosine over eight steps
    third = [0.8 / 3, 1.6 / 3]
    half = [0.4 * (1 + math.cos(math.pi * step / 8)) for step in range(8)]
    assert [lr for (lr,) in noted] == pytest.approx(third + half)
    assert noted[2][0] == pytest.approx(0.8)
    assert noted[6][0] == pytest.approx(0.4)


def test_constant_steps_stay_at_the_peak_after_the_warmup():
    model = linear()
    optimizer = sgd(model, lr=0.8)
    noted = noted_step_sizes(optimizer)
    fit(model, examples(32), optimizer, epochs=1, loss=cross_entropy(), warmup_frac=0.25)
    assert [lr for (lr,) in noted] == pytest.approx([0.4, 0.8, 0.8, 0.8])


def test_the_schedule_counts_the_steps_that_are_taken():
    model = linear()
    optimizer = sgd(model, lr=1.0)
    noted = noted_step_sizes(optimizer)
    # 33 examples are four batches of eight, the last of nine
    fit(model, examples(33), optimizer, epochs=1, loss=cross_entropy(), schedule="cosine")
    half = [0.5 * (1 + math.cos(math.pi * step / 4)) for step in range(4)]
    assert [lr for (lr,) in noted] == pytest.approx(half)


def test_peaks_of_all_groups_are_restored_and_gradients_dropped():
    model = linear()
    groups = [{"params": [model[1].weight], "lr": 0.5}, {"params": [model[1].bias], "lr": 0.1}]
    optimizer = torch.optim.SGD(groups)
    noted = noted_step_sizes(optimizer)
    fit(model, examples(16), optimizer, epochs=1, loss=cross_entropy(), schedule="cosine")
    assert noted == [[0.5, 0.1], [pytest.approx(0.25), pytest.approx(0.05)]]
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.1]
    assert all(parameter.grad is None for parameter in model.parameters())


# --- a step ---------------------------------------------------------------------------------------


def test_one_step_is_the_gradient_of_the_mean_loss():
    model = linear()
    before = deepcopy(model)
    batch = next(examples(8).batches(8))
    cross_entropy()(before, batch).backward()
    fit(model, examples(8), sgd(model, lr=0.1), epochs=1, loss=cross_entropy())
    for new, old in zip(model.parameters(), before.parameters(), strict=True):
        assert torch.allclose(new, old - 0.1 * old.grad, atol=1e-6)


def test_clip_norm_bounds_the_step_and_keeps_its_direction():
    steps = []
    for limit in (None, 0.25):
        model = linear()
        before = nn.utils.parameters_to_vector(model.parameters()).detach()
        fit(model, examples(8), sgd(model, lr=1.0), epochs=1, clip_norm=limit,
            loss=lambda model, batch: 100 * cross_entropy()(model, batch))  # fmt: skip
        steps.append(before - nn.utils.parameters_to_vector(model.parameters()).detach())
    free, bound = steps
    assert free.norm() > 1
    assert bound.norm() == pytest.approx(0.25, rel=1e-4)
    assert torch.cosine_similarity(free, bound, dim=0) == pytest.approx(1)


def test_a_gradient_below_the_limit_is_not_scaled_up():
    models = [linear(), linear()]
    for model, limit in zip(models, (None, 1e6), strict=True):
        fit(model, examples(8), sgd(model), epochs=1, loss=cross_entropy(), clip_norm=limit)
    assert torch.allclose(models[0][1].weight, models[1][1].weight, atol=1e-7)


def test_the_mean_loss_of_the_last_epoch_is_returned():
    model = linear()
    counter = iter(range(100))

    def loss(model, batch):
        return 0 * model(batch.images).sum() + next(counter)

    assert fit(model, examples(16), sgd(model), epochs=3, loss=loss) == (4 + 5) / 2


def test_the_model_is_left_in_eval_mode():
    model = fresh()
    fit(model, examples(16), sgd(model), epochs=1, loss=cross_entropy())
    assert not any(module.training for module in model.modules())


def test_label_smoothing_golden_loss():
    class Fixed(nn.Module):
        def forward(self, images):
            return torch.tensor([[2.0, 0.0, -1.0, 1.0]]).expand(len(images), 4)

    batch = next(examples(1).batches())
    label = int(batch.labels)
    logits = np.array([2.0, 0.0, -1.0, 1.0])
    log_p = logits - np.log(np.exp(logits).sum())
    assert float(cross_entropy()(Fixed(), batch)) == pytest.approx(-log_p[label], abs=1e-6)
    smooth = -(0.8 * log_p[label] + 0.2 * log_p.mean())
    assert float(cross_entropy(0.2)(Fixed(), batch)) == pytest.approx(smooth, abs=1e-6)


# --- norms ----------------------------------------------------------------------------------------


def running(model):
    return {k: v.clone() for k, v in model.state_dict().items() if "running" in k or "num_b" in k}


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_running_statistics_move_in_train_mode_only_while_weights_always_move(mode):
    model = fresh()
    before, weight = running(model), model.conv1[0].weight.detach().clone()
    gamma = model.bn1.weight.detach().clone()
    fit(model, examples(32), sgd(model), epochs=2, loss=cross_entropy(), batch_norm=mode)
    after = running(model)
    assert before
    assert all(torch.equal(before[k], after[k]) for k in before) == (mode == "eval")
    assert not torch.equal(weight, model.conv1[0].weight)
    assert not torch.equal(gamma, model.bn1.weight)


# --- divergence -----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_an_error_that_names_the_epoch(value):
    model = linear()
    counter = iter(range(100))

    def loss(model, batch):
        return cross_entropy()(model, batch) * (value if next(counter) == 3 else 1)

    with pytest.raises(DivergedError, match=r"the loss became (nan|inf) in epoch 2\."):
        fit(model, examples(16), sgd(model), epochs=3, loss=loss)


@pytest.mark.parametrize("name", ["conv1.0.weight", "bn1.running_var"])
def test_check_finite_names_the_tensor(name):
    model = fresh()
    check_finite(model)
    model.state_dict()[name].view(-1)[0] = math.nan
    with pytest.raises(DivergedError, match=f"`{name}` has values that are not finite"):
        check_finite(model)


# --- recipes --------------------------------------------------------------------------------------


class Pull(Unlearner):
    """A penalty that pulls every weight with a known force."""

    name = "pull"
    reference = "test"
    recipe = "pulled"
    penalty_fields = frozenset({"force"})
    force: float = 0.5
    seen: list = []  # noqa: RUF012 - dtypes of the penalty

    def unlearn(self, model, task):
        return model

    def training_penalty(self, model):
        penalty = self.force * torch.stack([p.sum() for p in model.parameters()]).sum()
        product = next(p for p in model.parameters() if p.dim() == 2)
        self.seen.append((product @ product.T).dtype)
        return penalty


def test_the_penalty_is_added_to_the_loss_and_no_more():
    settings = TrainingSettings(epochs=1, batch_size=8, lr=0.1, momentum=0, weight_decay=0,
                                schedule="constant", warmup_frac=0)  # fmt: skip
    plain = train_recipe(linear(), examples(8), Recipe("plain", settings))
    pulled = train_recipe(linear(), examples(8), Recipe("pulled", settings, Pull(force=0.5)))
    for free, held in zip(plain.parameters(), pulled.parameters(), strict=True):
        assert torch.allclose(held, free - 0.1 * 0.5, atol=1e-6)


def test_bf16_trains_with_float32_weights_and_a_float32_penalty():
    settings = TrainingSettings(epochs=1, batch_size=8, precision="bf16")
    method = Pull(seen=[])
    model = linear()
    outputs = []
    model[1].register_forward_hook(lambda module, inputs, output: outputs.append(output.dtype))
    train_recipe(model, examples(16), Recipe("pulled", settings, method))
    assert outputs == [torch.bfloat16] * 2
    assert method.seen == [torch.float32] * 2
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model(torch.zeros(1, 1, 8, 8)).dtype == torch.float32


def test_bf16_changes_the_result_only_a_little():
    models = []
    for precision in ("fp32", "bf16"):
        settings = TrainingSettings(epochs=1, batch_size=8, lr=0.01, precision=precision)
        models.append(train_recipe(linear(), examples(40), Recipe("plain", settings)))
    difference = (models[0][1].weight - models[1][1].weight).abs().max()
    assert 0 < difference < 1e-3


def test_the_recipe_decides_optimiser_batch_size_smoothing_and_clipping():
    settings = TrainingSettings(epochs=1, batch_size=16, optimizer="adamw", lr=0.02,
                                weight_decay=0.1, schedule="constant", warmup_frac=0,
                                label_smoothing=0.1, clip_norm=0.5)  # fmt: skip
    model, twin = linear(), linear()
    train_recipe(model, examples(32, batch_size=4), Recipe("plain", settings))
    optimizer = torch.optim.AdamW(twin.parameters(), lr=0.02, weight_decay=0.1)
    for batch in examples(32).batches(16, training=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(
            twin(batch.images), batch.labels, label_smoothing=0.1
        ).backward()
        nn.utils.clip_grad_norm_(twin.parameters(), 0.5)
        optimizer.step()
    assert torch.allclose(model[1].weight, twin[1].weight, atol=1e-6)


def trained_with(seed, penalty=None):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return train_recipe(fresh(), examples(60, seed=seed), toy_recipe(penalty))


def test_same_generator_gives_same_bits_and_another_gives_others():
    assert same_tensors(trained_with(1), trained_with(1))
    assert not same_tensors(trained_with(1), trained_with(2))


def test_the_orthogonal_recipe_makes_filters_more_orthogonal_than_the_plain_one():
    strong = METHODS.create("osp[ortho_lambda=0.1]")
    plain, penalised = trained_with(1), trained_with(1, "osp[ortho_lambda=0.1]")
    with torch.no_grad():
        before, after = (float(strong.training_penalty(m)) for m in (plain, penalised))
    assert after < 0.5 * before


def test_training_learns_the_toy_images_and_generalises():
    images = toy_images()
    settings = SETTINGS.model_copy(update={"epochs": 8})
    model = train_recipe(fresh(NARROW), examples(108), Recipe("plain", settings))
    test = ExampleSet("test", Pixels(images, "test", CPU), np.arange(60), 8, torch.Generator(), {})
    assert accuracy(model, test) > 0.8
    assert accuracy(fresh(NARROW), test) < 0.5


def test_training_without_augmentation_sees_the_images_as_they_are():
    seen = []
    base = toy_images()
    data = ImageData(base.train_images, base.train_labels, base.test_images, base.test_labels,
                     base.class_names, base.mean, base.std, flip=True, crop_pad=2)  # fmt: skip
    pixels = Pixels(data, "train", CPU)
    plain = {image.numpy().tobytes() for image in pixels.batch(torch.arange(20), None).images}
    for augment in (True, False):
        chosen = ExampleSet("training", pixels, np.arange(20), 8, torch.Generator().manual_seed(0),
                            {}, augment=augment)  # fmt: skip
        shown = set()

        def loss(model, batch, shown=shown):
            shown.update(image.numpy().tobytes() for image in batch.images)
            return cross_entropy()(model, batch)

        model = linear()
        fit(model, chosen, sgd(model), epochs=1, loss=loss)
        seen.append(shown == plain)
    assert seen == [False, True]
