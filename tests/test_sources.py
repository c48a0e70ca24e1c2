"Sources: true file formats in small, through torchvision's own classes; only their checksum tables are patched."
import errno
import shutil
import sys
import tarfile
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision import datasets
from torchvision.datasets import utils
from torchvision.transforms.v2 import functional as T

from dcgan.datasets import sources
from dcgan.datasets.sources import SOURCES, Want, _recoloured, _resized, _shaped, fitted, load

from formats import celeba, cifar, picture, svhn  # noqa: F401 (fixtures)

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise OSError("no network in tests")
    monkeypatch.setattr(utils, "_get_redirect_url", refuse)
    monkeypatch.delenv("DCGAN_DATA", raising=False), monkeypatch.delenv("DCGAN_CACHE", raising=False)


# digits

def test_digits_are_split_for_good():
    train, test = load("digits"), load("digits", "test", seed=5)
    assert train.images.shape == (4000, 1, 28, 28) and test.images.shape == (1000, 1, 28, 28)
    assert train.labels.bincount().tolist() == [400]*10 and test.labels.bincount().tolist() == [100]*10
    known = {x.numpy().tobytes() for x in train.images}
    assert len(known) == 4000 and not any(x.numpy().tobytes() in known for x in test.images)
    assert torch.equal(load("digits", seed=3).images, train.images) and train.note == ""
    assert train.images.max() == 255 and train.images.min() == 0
    train.images[:] = 0
    assert load("digits").images.any(), "one bank's owner has spoilt the next one's"


@pytest.mark.parametrize("n", [1, 7, 8])
def test_fewer_images_are_a_choice_by_seed(n):
    banks = [load("digits", images=n, seed=s) for s in (0, 0, 1)]
    assert all(len(b.images) == len(b.labels) == n and b.note == f"{n} of 4,000 images" for b in banks)
    assert torch.equal(banks[0].images, banks[1].images) and not torch.equal(banks[0].images, banks[2].images)
    whole = load("digits")
    for x, k in zip(banks[0].images, banks[0].labels):
        assert (whole.images[whole.labels == k] == x).flatten(1).all(1).any(), "image and label got apart"


# size and colour

@pytest.mark.parametrize("c, size, to", [(1, 28, 64), (3, 32, 16), (3, 64, 28), (1, 28, 32)])
def test_resized_as_torchvision_does(c, size, to):
    images = torch.from_numpy(RNG.integers(0, 256, (5, c, size, size), dtype=np.uint8))
    got = _resized(images, to)
    assert got.dtype == torch.uint8 and got.shape == (5, c, to, to)
    assert (got.int() - T.resize(images, [to, to], antialias=True).int()).abs().max() <= 1
    assert torch.equal(torch.cat([_resized(images.repeat(500, 1, 1, 1), to)[-5:]]), got), (
        "parts of 1,024 make a difference"
    )


def test_recoloured():
    rgb = torch.from_numpy(RNG.integers(0, 256, (4, 3, 8, 8), dtype=np.uint8))
    pil = np.stack([np.asarray(Image.fromarray(x.permute(1, 2, 0).numpy()).convert("L")) for x in rgb])
    assert (_recoloured(rgb, 1)[:, 0].int() - torch.from_numpy(pil).int()).abs().max() <= 1
    grey = rgb[:, :1]
    assert torch.equal(_recoloured(_recoloured(grey, 3), 1), grey) and _recoloured(rgb, 3) is rgb
    white = torch.full((1, 3, 2, 2), 255).byte()
    assert (_recoloured(white, 1) == 255).all()


def test_what_was_changed_is_said():
    images = torch.zeros(4, 1, 8, 8).byte()
    assert _shaped(images, Want("x"))[1] == "" and _shaped(images, Want("x", image_size=8, channels=1))[1] == ""
    bank = fitted(images, torch.arange(4), Want("x", image_size=16, channels=3, images=2), "drawn")
    assert (
        bank.images.shape == (2, 3, 16, 16)
        and bank.note == "drawn; 2 of 4 images; resized from 8×8 to 16×16; grey to RGB"
    )
    assert _shaped(torch.zeros(4, 3, 8, 8).byte(), Want("x", channels=1))[1] == "RGB to grey"


# SVHN

@pytest.mark.parametrize(
    "name, split, part",
    [
        ("svhn", "train", "train"),
        ("svhn", "test", "test"),
        ("svhn", "extra", "extra"),
        ("svhn-extra", "train", "extra"),
        ("svhn-extra", "test", "test"),
    ],
)
def test_svhn(tmp_path, svhn, name, split, part):
    bank = load(name, split, data_dir=tmp_path)
    x, y = svhn[part]
    assert np.array_equal(bank.images.numpy(), x.transpose(3, 2, 0, 1)) and bank.images.dtype == torch.uint8
    assert bank.labels.tolist() == [int(k) % 10 for k in y[:, 0]], "SVHN calls zero 10"


def test_svhn_is_read_once_and_resized(tmp_path, svhn, monkeypatch, capsys):
    wish = dict(name="svhn", split="extra", data_dir=tmp_path, image_size=16, channels=1, images=1100)
    bank = load(**wish)
    assert bank.images.shape == (1100, 1, 16, 16) and len(bank.labels) == 1100
    assert bank.note == "1,100 of 1,500 images; resized from 32×32 to 16×16; RGB to grey"
    monkeypatch.setattr(sources, "_from_array", None)                 # would fail if it were called again
    again = load(**wish)
    assert torch.equal(again.images, bank.images) and again.note == bank.note
    assert capsys.readouterr().out.count("images go into") == 1


def test_svhn_changes_with_its_file(tmp_path, svhn, monkeypatch):
    before = load("svhn", "test", data_dir=tmp_path).images.clone()
    file = tmp_path/"SVHN"/"test_32x32.mat"
    savemat(file, dict(X=255 - svhn["test"][0], y=svhn["test"][1]))
    with pytest.raises(FileNotFoundError, match="checksum of SVHN/test_32x32.mat is wrong.*stand-in house_numbers"):
        load("svhn", "test", data_dir=tmp_path)
    table = dict(datasets.SVHN.split_list, test=[*datasets.SVHN.split_list["test"][:2], utils.calculate_md5(file)])
    monkeypatch.setattr(datasets.SVHN, "split_list", table)
    assert torch.equal(load("svhn", "test", data_dir=tmp_path).images, 255 - before)


def test_svhn_absent(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="put SVHN/train_32x32.mat there, or use the offline stand-in house_numbers"
    ):
        load("svhn", data_dir=tmp_path/"d")
    assert not (tmp_path/"d").exists()


# CIFAR-10

def test_cifar10(tmp_path, cifar):
    train, test = load("cifar10", data_dir=tmp_path), load("cifar10", "test", data_dir=tmp_path)
    assert np.array_equal(test.images.numpy(), cifar["test_batch"].reshape(4, 3, 32, 32))
    assert (
        train.images.shape == (20, 3, 32, 32)
        and train.labels.tolist() == [0, 1, 2, 9] * 5
        and train.images.is_contiguous()
    )


def test_cifar10_from_its_archive(tmp_path, cifar, monkeypatch):
    archive, folder = tmp_path/"d"/datasets.CIFAR10.filename, tmp_path/"cifar-10-batches-py"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    with pytest.raises(FileNotFoundError, match="checksum of cifar-10-python.tar.gz is wrong"):
        load("cifar10", data_dir=tmp_path/"d")
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", utils.calculate_md5(archive))
    assert len(load("cifar10", "test", data_dir=tmp_path/"d").images) == 4


def test_cifar10_absent(tmp_path):
    with pytest.raises(FileNotFoundError, match="put cifar-10-python.tar.gz there, or use .* house_numbers"):
        load("cifar10", data_dir=tmp_path)
    assert not list(tmp_path.iterdir())


# CelebA

def test_celeba(tmp_path, celeba, monkeypatch):
    bank = load("celeba", data_dir=tmp_path)
    assert bank.images.shape == (8, 3, 64, 64) and bank.images.dtype == torch.uint8 and bank.labels is None
    assert "178×218" in bank.note
    for k, x in enumerate(bank.images):
        assert (x.float().mean((1, 2)) - torch.tensor([20.*k, 100, 200])).abs().max() < 3
        assert x[0, 1:-1].float().std() < 3, "the red bars above and below belong to no middle square"
    test = load("celeba", "test", data_dir=tmp_path, image_size=32, channels=1, images=1)
    assert test.images.shape == (1, 1, 32, 32) and test.note.startswith("1 of 2 images")
    monkeypatch.setattr(sources, "from_files", None)
    assert torch.equal(load("celeba", data_dir=tmp_path).images, bank.images)


def test_celeba_from_its_zip(tmp_path, celeba):
    whole = load("celeba", data_dir=tmp_path).images.clone()
    for file in (celeba/"img_align_celeba").iterdir():
        file.unlink()
    (celeba/"img_align_celeba").rmdir()
    (tmp_path/"img_align_celeba.zip").rename(celeba/"img_align_celeba.zip")
    assert torch.equal(load("celeba", data_dir=tmp_path).images, whole)
    assert not [p for p in celeba.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("name", ["list_eval_partition.txt", "list_attr_celeba.txt", "identity_CelebA.txt"])
def test_celeba_without_one_of_its_files(tmp_path, celeba, name):
    (celeba/name).unlink()
    with pytest.raises(FileNotFoundError) as e:
        load("celeba", data_dir=tmp_path)
    said = str(e.value)
    assert f"put celeba/{name} there, or use the offline stand-in faces" in said and "\n" not in said
    assert not (tmp_path/"cache").exists()
    (celeba/name).write_text("<!DOCTYPE html>quota")
    with pytest.raises(FileNotFoundError, match=f"the checksum of celeba/{name} is wrong"):
        load("celeba", data_dir=tmp_path)


def test_celeba_absent(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match="celeba/img_align_celeba.zip, .*celeba/list_eval_partition.txt there, or use the off",
    ):
        load("celeba", data_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_celeba_quota_page(tmp_path, celeba):
    (celeba/"img_align_celeba").rename(celeba/"elsewhere")
    (celeba/"img_align_celeba.zip").write_text("<html>Sorry, you can't download this file at this time</html>")
    with pytest.raises(
        FileNotFoundError,
        match="img_align_celeba.zip is wrong .it is a web page.*put celeba/img_align_celeba.zip there",
    ):
        load("celeba", data_dir=tmp_path)
    assert (celeba/"img_align_celeba.zip").read_text().startswith("<html>"), "left as it is"


@pytest.mark.parametrize("harm", ["cut", "one byte", "bomb"])
def test_only_celeba_s_own_archive_is_unpacked(tmp_path, celeba, monkeypatch, harm):
    "Another checksum: half a download, a damaged file, or one made to fill the disk."
    (celeba/"img_align_celeba").rename(celeba/"elsewhere")
    archive = celeba/"img_align_celeba.zip"
    data = bytearray((tmp_path/"img_align_celeba.zip").read_bytes())
    data[len(data)//2] ^= 0xff
    archive.write_bytes(data[:-30] if harm == "cut" else data)
    if harm == "bomb":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as bomb:
            bomb.writestr("img_align_celeba/000001.jpg", bytes(10**7))
    before = sorted(celeba.iterdir())
    monkeypatch.setattr(zipfile.ZipFile, "extractall", lambda *_: pytest.fail("it was unpacked"))
    with pytest.raises(FileNotFoundError, match="the checksum of celeba/img_align_celeba.zip is wrong: put"):
        load("celeba", data_dir=tmp_path)
    assert sorted(celeba.iterdir()) == before


def zipped(tmp_path, celeba):
    "CelebA's archive in its place, not yet unpacked."
    (celeba/"img_align_celeba").rename(tmp_path/"elsewhere")
    (tmp_path/"img_align_celeba.zip").rename(celeba/"img_align_celeba.zip")
    return sorted(celeba.iterdir())


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EROFS, "Read-only file system")]
)
def test_celeba_where_there_is_no_room_to_unpack(tmp_path, celeba, monkeypatch, error):
    before = zipped(tmp_path, celeba)
    def full(self, path):
        Path(path, "img_align_celeba").mkdir(), Path(path, "img_align_celeba", "000001.jpg").write_text("half")
        raise error
    monkeypatch.setattr(zipfile.ZipFile, "extractall", full)
    with pytest.raises(OSError, match=f"celeba can't be written .{error.strerror}.: choose another folder by data_dir"):
        load("celeba", data_dir=tmp_path)
    assert sorted(celeba.iterdir()) == before, "nothing is left of it"


def test_another_process_unpacks_celeba_faster(tmp_path, celeba, monkeypatch):
    zipped(tmp_path, celeba)
    extract = zipfile.ZipFile.extractall
    def slow(self, path):
        shutil.copytree(tmp_path/"elsewhere", celeba/"img_align_celeba")
        extract(self, path)
    monkeypatch.setattr(zipfile.ZipFile, "extractall", slow)
    assert len(load("celeba", data_dir=tmp_path).images) == 8 and not [
        p for p in celeba.iterdir() if p.name.startswith(".")
    ]


def test_celeba_without_gdown_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(
        FileNotFoundError,
        match="'gdown' is required; pip install gdown, then try again.: put celeba/img_align_celeba.zip",
    ):
        load("celeba", data_dir=tmp_path)


def test_celeba_through_gdown(tmp_path, celeba, monkeypatch):
    "What is there is not fetched again; a server's own kind of error is a sentence, and leaves no trace."
    zipped(tmp_path, celeba)
    content = {
        (celeba / name).name: (celeba / name).read_bytes()
        for name in ("list_attr_celeba.txt", "img_align_celeba.zip")
    }
    for name in content:
        (celeba/name).unlink()
    before, ids = sorted(celeba.iterdir()), {i: name for i, _, name in datasets.CelebA.file_list}
    class Refusal(Exception):
        pass
    def refuse(id, output, **_):
        raise Refusal("Failed to retrieve file url:\n\n\tToo many users have viewed this file. Try again later.")
    def fetch(id, output, **_):
        Path(output).write_bytes(content[ids[id]])
    gdown = types.SimpleNamespace(download=refuse)
    monkeypatch.setitem(sys.modules, "gdown", gdown)
    with pytest.raises(
        FileNotFoundError,
        match="could not be downloaded .Too many users have viewed this file.: put celeba/img_align",
    ):
        load("celeba", data_dir=tmp_path)
    assert sorted(celeba.iterdir()) == before
    gdown.download = fetch
    assert len(load("celeba", data_dir=tmp_path).images) == 8


def test_celeba_broken_pictures_are_counted(tmp_path, celeba):
    (celeba/"img_align_celeba"/"000003.jpg").write_bytes(b"\xff\xd8cut")
    (celeba/"img_align_celeba"/"000005.jpg").unlink()
    bank = load("celeba", data_dir=tmp_path)
    assert len(bank.images) == 6 and "2 of 8 left out: 2 (000003.jpg, 000005.jpg) broken" in bank.note


# folders

def from_folder(root, tmp_path, **wish):
    return load(f"folder:{root}", data_dir=tmp_path/"data", **wish)


def test_folder_flat(tmp_path):
    for k in range(7):
        picture(tmp_path/"f"/f"{k}.png", colour=30*k)
    bank = from_folder(tmp_path/"f", tmp_path)
    assert bank.images.shape == (7, 3, 20, 20) and bank.labels is None and bank.note == ""
    assert bank.images[:, 0, 0, 0].tolist() == [30*k for k in range(7)]


def test_folder_nested_has_classes(tmp_path):
    for k, name in enumerate(["b/x.png", "a/deep/er/y.JPG", "a/z.webp"]):
        picture(tmp_path/"f"/name, colour=100*k)
    bank = from_folder(tmp_path/"f", tmp_path)
    assert bank.labels.tolist() == [0, 0, 1] and len(bank.images) == 3
    picture(tmp_path/"f"/"loose.png")
    assert from_folder(tmp_path/"f", tmp_path).labels is None, "a new file is a new bank, and it has no class"


def test_folder_of_grey_files_is_grey(tmp_path):
    for k, mode in enumerate(["L", "LA", "1"]):
        picture(tmp_path/"f"/f"{k}.png", mode=mode, colour=255)
    assert from_folder(tmp_path/"f", tmp_path).images.shape == (3, 1, 20, 20)
    assert from_folder(tmp_path/"f", tmp_path, channels=3).images.shape == (3, 3, 20, 20)


def test_folder_of_everything(tmp_path):
    (
        picture(tmp_path / "f" / "rgb.png"),
        picture(tmp_path / "f" / "grey.png", mode="L"),
        picture(tmp_path / "f" / "palette.gif", mode="P"),
    )
    (
        picture(tmp_path / "f" / "rgba.png", mode="RGBA"),
        picture(tmp_path / "f" / "cmyk.jpg", mode="CMYK"),
        picture(tmp_path / "f" / "wide.png", (40, 20)),
    )
    Image.fromarray(np.full((20, 20), 255*256, np.uint16)).save(tmp_path/"f"/"deep.png")
    (tmp_path/"f"/"page.jpg").write_text("<!DOCTYPE html>")
    (tmp_path/"f"/"cut.png").write_bytes((tmp_path/"f"/"wide.png").read_bytes()[:50])
    (tmp_path/"f"/"notes.txt").write_text("x"), (tmp_path/"f"/"._rgb.png").write_text("a Mac's shadow file")
    bank = from_folder(tmp_path/"f", tmp_path, image_size=16)
    assert bank.images.shape == (7, 3, 16, 16)
    assert bank.note.endswith("3 of 10 left out: 2 (cut.png, page.jpg) broken, 1 (notes.txt) with another ending")
    assert all(
        part in bank.note
        for part in ("middle squares scaled to 16×16", "1 CMYK", "1 16-bit", "1 with transparency")
    )
    assert bank.images.amax((1, 2, 3)).tolist() == [0, 255, 0, 0, 0, 0, 0], "the 16-bit one is white"


def test_folder_of_mixed_sizes_needs_one(tmp_path):
    picture(tmp_path/"f"/"a.png"), picture(tmp_path/"f"/"b.png", (30, 20))
    with pytest.raises(ValueError, match="images of 2 sizes, such as 30×20: give image_size"):
        from_folder(tmp_path/"f", tmp_path)
    assert not list(tmp_path.glob("data/**/images.u8"))
    assert from_folder(tmp_path/"f", tmp_path, image_size=8).images.shape == (2, 3, 8, 8)


def test_found_0_images(tmp_path):
    (tmp_path/"f"/"sub").mkdir(parents=True)
    with pytest.raises(
        FileNotFoundError, match="found 0 images in .*: expected names that end in .jpg.*there are no files"
    ):
        from_folder(tmp_path/"f", tmp_path)
    (tmp_path/"f"/"sub"/"a.heic").write_text("x")
    with pytest.raises(FileNotFoundError, match="1 of 1 left out: 1 \\(sub/a.heic\\) with another ending"):
        from_folder(tmp_path/"f", tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        from_folder(tmp_path/"g", tmp_path)
    (tmp_path/"f"/"sub"/"a.png").write_text("x")
    with pytest.raises(ValueError, match="none of 1 images could be read; the first is sub/a.png: not an image"):
        from_folder(tmp_path/"f", tmp_path)


def test_folder_with_splits(tmp_path):
    for k in range(5):
        picture(tmp_path/"f"/("train" if k < 3 else "test")/f"{k}.png", colour=k)
    assert from_folder(tmp_path/"f", tmp_path).images[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert from_folder(tmp_path/"f", tmp_path, split="test").images[:, 0, 0, 0].tolist() == [3, 4]
    with pytest.raises(ValueError, match="no images held out"):
        from_folder(tmp_path/"f"/"train", tmp_path, split="test")


def test_folder_choice_and_cache_elsewhere(tmp_path, monkeypatch):
    for k in range(20):
        picture(tmp_path/"f"/f"{k:02}.png", colour=k)
    monkeypatch.setenv("DCGAN_CACHE", str(tmp_path/"c")), monkeypatch.setenv("DCGAN_DATA", str(tmp_path/"d"))
    a, b, c = (load(f"folder:{tmp_path/'f'}", images=5, seed=s) for s in (0, 0, 1))
    assert torch.equal(a.images, b.images) and not torch.equal(a.images, c.images) and a.note == "5 of 20 images"
    assert (tmp_path/"c").exists() and not (tmp_path/"d").exists()


# stand-ins and names

@pytest.mark.parametrize("name, shape", [("house_numbers", (3, 32, 32)), ("faces", (3, 64, 64))])
def test_stand_ins(name, shape):
    train, test = load(name, images=30), load(name, "test", images=30)
    assert train.images.shape == (30, *shape) and "stand-in" in train.note
    assert torch.equal(load(name, images=30).images, train.images) and not torch.equal(
        load(name, images=30, seed=1).images, train.images
    )
    known = {x.numpy().tobytes() for x in train.images}
    assert not any(x.numpy().tobytes() in known for x in test.images)


@pytest.mark.parametrize(
    "wish, says",
    [
        (dict(name="mnits"), "did you mean 'mnist'"),
        (dict(name="Digits"), "did you mean 'digits'"),
        (dict(name="?"), "there are: digits, mnist"),
        (dict(name=""), "no data set"),
        (dict(split="valid"), "expected 'train' or 'test'"),
        (dict(split="extra"), "expected 'train'"),
        (dict(channels=2), "1 \\(grey\\), 3 \\(RGB\\)"),
        (dict(image_size=0), "whole number from 1"),
        (dict(image_size=2.5), "whole number"),
        (dict(images=-1), "whole number"),
        (dict(images=4001), "has 4,000: ask for that many or fewer"),
    ],
)
def test_what_cannot_be_meant(wish, says):
    with pytest.raises(ValueError, match=says) as e:
        load(**{"name": "digits", **wish})
    assert "\n" not in str(e.value)


def test_all_sources_are_named():
    assert set(SOURCES) == {
        "digits", "mnist", "fashion_mnist", "svhn", "svhn-extra", "celeba", "cifar10", "house_numbers",
        "faces",
    }


def test_celeba_as_kaggle_packs_it(tmp_path, celeba):
    whole = load("celeba", data_dir=tmp_path).images.clone()
    (celeba/"img_align_celeba").rename(celeba/"inner"), (celeba/"img_align_celeba").mkdir()
    (celeba/"inner").rename(celeba/"img_align_celeba"/"img_align_celeba")
    assert torch.equal(load("celeba", data_dir=tmp_path).images, whole)
    (celeba/"list_eval_partition.txt").rename(celeba/"list_eval_partition.csv")
    with pytest.raises(
        FileNotFoundError,
        match="celeba/list_eval_partition.csv are not read in their place: put celeba/list_eval_partition.txt there",
    ):
        load("celeba", data_dir=tmp_path)
