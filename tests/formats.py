"Small data sets in their true file formats, for torchvision's own classes; only checksum tables are patched."
import gzip
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision import datasets
from torchvision.datasets import utils

RNG = np.random.default_rng(0)


def idx_gz(a):
    return gzip.compress(struct.pack(f">HBB{a.ndim}I", 0, 8, a.ndim, *a.shape) + a.numpy().tobytes(), mtime=0)


@pytest.fixture
def mnist_files(tmp_path, monkeypatch):
    "MNIST's four archives, small, and torchvision's checksum table patched to them."
    files, table = {}, []
    for part, n in ("train", 12), ("t10k", 5):
        files[f"{part}-images-idx3-ubyte.gz"] = idx_gz(torch.arange(n*28*28).view(n, 28, 28) % 251 == 0)
        files[f"{part}-labels-idx1-ubyte.gz"] = idx_gz((torch.arange(n) % 10).byte())
    for name, data in files.items():
        (tmp_path/"x").write_bytes(data)
        table.append((name, utils.calculate_md5(tmp_path/"x")))
    (tmp_path/"x").unlink()
    monkeypatch.setattr(datasets.MNIST, "resources", table)
    monkeypatch.setattr(datasets.FashionMNIST, "resources", table)
    return files


@pytest.fixture
def svhn(tmp_path, monkeypatch):
    table, made = dict(datasets.SVHN.split_list), {}
    (tmp_path/"SVHN").mkdir()
    for split, n in ("train", 30), ("test", 11), ("extra", 1500):
        file = tmp_path/"SVHN"/f"{split}_32x32.mat"
        made[split] = (
            RNG.integers(0, 256, (32, 32, 3, n), dtype=np.uint8),
            (np.arange(n) % 10 + 1).astype(np.uint8)[:, None],
        )
        savemat(file, dict(X=made[split][0], y=made[split][1]), do_compression=True)
        table[split] = [table[split][0], file.name, utils.calculate_md5(file)]
    monkeypatch.setattr(datasets.SVHN, "split_list", table)
    return made


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    base, tables, images = tmp_path/"cifar-10-batches-py", {"train_list": [], "test_list": []}, {}
    base.mkdir()
    for name in [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]:
        images[name] = RNG.integers(0, 256, (4, 3072), dtype=np.uint8)
        (base/name).write_bytes(pickle.dumps({"data": images[name], "labels": [0, 1, 2, 9]}))
        tables["test_list" if name == "test_batch" else "train_list"].append([name, utils.calculate_md5(base/name)])
    (base/"batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    meta = dict(datasets.CIFAR10.meta, md5=utils.calculate_md5(base/"batches.meta"))
    for key, value in dict(tables, meta=meta).items():
        monkeypatch.setattr(datasets.CIFAR10, key, value)
    return images


N_FACES = 12


def write_celeba(base, n=N_FACES):
    "CelebA's folder with its five text files and 178×218 JPEGs; the first 8 to train, then 2 valid, 2 test."
    names = [f"{k + 1:06}.jpg" for k in range(n)]
    (base/"img_align_celeba").mkdir(parents=True)
    for k, name in enumerate(names):
        image = Image.new("RGB", (178, 218), (20*k, 100, 200))
        image.paste((255, 0, 0), (0, 0, 178, 20)), image.paste((255, 0, 0), (0, 198, 178, 218))    # cropped away
        image.save(base/"img_align_celeba"/name, quality=95)
    table = {
        "list_attr_celeba.txt": f"{n}\nSmiling Hat\n" + "".join(f"{x}  1 -1\n" for x in names),
        "identity_CelebA.txt": "".join(f"{x} {k}\n" for k, x in enumerate(names)),
        "list_bbox_celeba.txt": f"{n}\nimage_id x_1 y_1 width height\n"
        + "".join(f"{x}  1  2  3  4\n" for x in names),
        "list_landmarks_align_celeba.txt": f"{n}\n"
        + " ".join("abcdefghij")
        + "\n"
        + "".join(f"{x} {'5 ' * 9}5\n" for x in names),
        "list_eval_partition.txt": "".join(
            f"{x} {0 if k < 8 else 1 if k < 10 else 2}\n" for k, x in enumerate(names)
        ),
    }
    for name, text in table.items():
        (base/name).write_text(text)


@pytest.fixture
def celeba(tmp_path, monkeypatch):
    base = tmp_path/"celeba"
    write_celeba(base)
    with zipfile.ZipFile(tmp_path/"img_align_celeba.zip", "w") as archive:
        for file in sorted((base/"img_align_celeba").iterdir()):
            archive.write(file, f"img_align_celeba/{file.name}")
    def md5(name): return utils.calculate_md5(base/name if name.endswith(".txt") else tmp_path/name)

    monkeypatch.setattr(
        datasets.CelebA, "file_list", [(i, md5(name), name) for i, _, name in datasets.CelebA.file_list]
    )
    return base


def picture(file, size=(20, 20), mode="RGB", colour=0, **how):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (colour,)*3).convert(mode).save(file, **how)
