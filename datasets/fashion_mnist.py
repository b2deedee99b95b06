"""Fashion-MNIST through torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from ..bench import Dataset, ImageData
from ..bench.torchvision_data import TorchvisionFiles, first_of_each_class, open_splits

# torchvision knows only those of its own .gz files; these are of the files inside, which are the
# same bytes whoever packed them.
RAW_MD5 = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}


class FashionMnist(Dataset):
    """Zalando's articles of clothing, 28x28 grey.

    Read from `FashionMNIST/raw` under the data root. Mirrored images are allowed: a garment
    keeps its name when it is turned over. The crop moves by 2 pixels, because the articles
    fill the frame of 28 and a wider move would cut sleeves and heels off.

    Attributes:
        per_class: Take only the first so many training images of each class; the test set
            stays whole. None takes all 6,000.
    """

    name = "fashion-mnist"
    reference = "Xiao, Rasul and Vollgraf, Fashion-MNIST, arXiv:1708.07747"
    about = "60,000 + 10,000 grey images of 28x28, 10 classes"
    downloads = True

    per_class: Annotated[int, Field(ge=1, le=6000)] | None = None

    def load(self, data_root: Path) -> ImageData:
        """Read the images through torchvision; download them if they are absent."""
        from torchvision.datasets import FashionMNIST

        files = TorchvisionFiles(
            folder="FashionMNIST/raw",
            md5=RAW_MD5,
            archives={f"FashionMNIST/raw/{file}": md5 for file, md5 in FashionMNIST.resources},
        )
        # Versions before 2020 left `processed/*.pt`, which torchvision would prefer to the
        # verified files. The class's name is also the folder's.
        source = type("FashionMNIST", (FashionMNIST,), {"_check_legacy_exist": lambda _: False})
        train, test = open_splits(self.name, source, files, data_root)
        labels = train.targets.numpy().astype(np.int64)
        rows = first_of_each_class(labels, self.per_class)
        return ImageData(
            train_images=np.ascontiguousarray(train.data.numpy()[rows, None]),
            train_labels=labels[rows],
            test_images=np.ascontiguousarray(test.data.numpy()[:, None]),
            test_labels=test.targets.numpy().astype(np.int64),
            class_names=tuple(FashionMNIST.classes),
            mean=(0.2860,),
            std=(0.3530,),
            flip=True,
            crop_pad=2,
        )
