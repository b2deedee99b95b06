"""UNSIR: impair with noise that stands for the class, then repair with the retain set.

Source: Tarun, Chundawat, Mandal, Kankanhalli, "Fast Yet Effective Machine Unlearning", IEEE TNNLS
    2023, https://arxiv.org/abs/2111.08947.
Reference code: https://github.com/vikram2000b/Fast-Machine-Unlearning (read for its facts; none
    used).
Differences: every class has `noise_images` images, all of which are used, under its own label. In
    public code a loop over channels in place of images leaves three of each batch, and all noise
    has the label 0; its step sizes were found with that. Noise is served beside the retain
    images of every step, `noise_ratio` to one, and not as part of a shuffled set; the default is
    the ratio that was meant there for one class of ten. Adam has no weight decay. Step sizes are
    those of later code for a network of usual accuracy (theirs, 0.02 and 0.01, are for 78 %).
Norms: BatchNorm is in eval mode while noise is made, and in train mode in both passes, so that its
    running statistics see the noise.
Cost: a pass over the retain samples with noise beside it and one without, forward and backward, and
    `noise_steps` over the noise. It needs no image of the forget set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from ..bench import Range, Unlearner

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..bench import Batch, UnlearningTask


class Unsir(Unlearner):
    """Learn error-maximising noise for the class, train on it, and repair.

    Attributes:
        impair_lr: Step size of Adam on noise and retain samples.
        repair_lr: Step size of Adam on retain samples.
        noise_images: Noise images for every forgotten class.
        noise_steps: Steps of Adam on the noise.
        noise_lr: Step size of those, in units of normalised images.
        noise_decay: Weight of the mean squared norm of the noise images.
        noise_ratio: Noise images of a class for every retain image in the impair pass.
        samples_per_class: Retain images of every kept class.
    """

    name: ClassVar[str] = "unsir"
    reference: ClassVar[str] = "Tarun et al., TNNLS 2023, arXiv 2111.08947"
    needs: ClassVar = frozenset({"retain", "gradients"})
    scope: ClassVar = frozenset({"class"})
    known_failures: ClassVar = {
        "forgets": "the published step size is for many more steps than a few images give"
    }

    impair_lr: Annotated[float, Field(gt=0), Range(1e-5, 2e-2, log=True)] = 2e-4
    repair_lr: Annotated[float, Field(gt=0), Range(1e-5, 2e-2, log=True)] = 2e-4
    noise_images: Annotated[int, Field(ge=1), Range(16, 512, log=True)] = 256
    noise_steps: Annotated[int, Field(ge=0), Range(10, 100)] = 40
    noise_lr: Annotated[float, Field(gt=0), Range(1e-2, 1, log=True)] = 0.1
    noise_decay: Annotated[float, Field(ge=0)] = 0.1
    noise_ratio: Annotated[float, Field(gt=0), Range(0.05, 2, log=True)] = 0.57
    samples_per_class: Annotated[int, Field(ge=1), Range(100, 1000)] = 1000

    def unlearn(self, model: nn.Module, task: UnlearningTask) -> nn.Module:
        """Make the noise, impair for one pass, repair for one pass."""
        import torch
        from torch.nn import functional as F  # noqa: N812

        noise = torch.cat([self.noise(model, task, label) for label in task.forget_classes])
        labels = torch.tensor(task.forget_classes, device=task.device)
        labels = labels.repeat_interleave(self.noise_images)
        kept = len(set(task.retain.labels.tolist()))
        retain = task.retain.sample(self.samples_per_class * kept, balanced=True)

        def mixed(model: nn.Module, batch: Batch) -> Tensor:
            count = max(1, round(self.noise_ratio * len(task.forget_classes) * len(batch)))
            drawn = torch.randint(len(noise), (count,), generator=task.rng).to(task.device)
            outputs = model(torch.cat([batch.images, noise[drawn]]))
            return F.cross_entropy(outputs, torch.cat([batch.labels, labels[drawn]]))

        for lr, loss in ((self.impair_lr, mixed), (self.repair_lr, None)):
            optimizer = task.optimizer(model, lr=lr, name="adamw", weight_decay=0)
            task.fit(model, retain, optimizer, loss=loss)
        return model

    def noise(self, model: nn.Module, task: UnlearningTask, label: int) -> Tensor:
        """Images `(noise_images, C, H, W)` that minimise -CE(f(N), label) + decay mean |N|^2."""
        import torch
        from torch.nn import functional as F  # noqa: N812

        rng, made = task.noise_rng(), []
        for start in range(0, self.noise_images, task.recipe.settings.batch_size):
            size = min(task.recipe.settings.batch_size, self.noise_images - start)
            noise = torch.randn(size, *task.image_shape, generator=rng, device=task.device)
            noise.requires_grad_()
            labels = torch.full((size,), label, device=task.device)
            optimizer = torch.optim.Adam([noise], lr=self.noise_lr)
            for _ in range(self.noise_steps):
                norms = noise.square().sum((1, 2, 3)).mean()
                loss = self.noise_decay * norms - F.cross_entropy(model(noise), labels)
                (noise.grad,) = torch.autograd.grad(loss, noise)
                optimizer.step()
            made.append(noise.detach())
        return torch.cat(made)
