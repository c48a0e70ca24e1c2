"Downloads: whole or not at all, and a sentence when there is none. No test goes to the network."
import errno
import gzip
import urllib.error
from pathlib import Path

import pytest
from torchvision.datasets import utils

from dcgan.datasets import sources
from dcgan.datasets.sources import Want, load

from formats import mnist_files  # noqa: F401 (a fixture)

REFUSED = urllib.error.HTTPError("http://x", 403, "Forbidden", None, None)


@pytest.fixture
def server(monkeypatch):
    "A server to be filled: file name → bytes, or an error to raise after half of them were written."
    files = {}
    def fetch(url, path, chunk_size=None):
        got = files.get(url.rsplit("/")[-1], REFUSED)
        Path(path).write_bytes(got if isinstance(got, bytes) else b"half a file")
        if not isinstance(got, bytes):
            raise got
    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, **_: url)
    monkeypatch.setattr(utils, "_urlretrieve", fetch)
    return files


def everything(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_downloaded_once(tmp_path, server, mnist_files, name):
    server.update(mnist_files)
    assert load(name, data_dir=tmp_path/"d").images.shape == (12, 1, 28, 28)
    assert not [p for p in everything(tmp_path) if ".download" in p]
    server.clear()
    bank = load(name, "test", data_dir=tmp_path/"d")
    assert bank.images.shape == (5, 1, 28, 28) and bank.labels.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "error", [REFUSED, urllib.error.URLError("no route"), OSError("reset"), TimeoutError("timed out")]
)
def test_refused_leaves_no_trace_and_says_what_to_do(tmp_path, server, mnist_files, error):
    server.update(mnist_files | {"t10k-images-idx3-ubyte.gz": error})
    with pytest.raises(FileNotFoundError) as e:
        load("mnist", data_dir=tmp_path/"a"/"b")
    said = str(e.value)
    assert (
        "\n" not in said
        and said.endswith("or use the offline stand-in digits")
        and "could not be downloaded" in said
    )
    assert all(f"MNIST/raw/{name}" in said for name in mnist_files)
    assert not everything(tmp_path)


def test_a_page_instead_of_the_file(tmp_path, server, mnist_files):
    server.update({name: b"<!DOCTYPE html>quota" for name in mnist_files})
    with pytest.raises(FileNotFoundError, match="File not found or corrupted"):
        load("mnist", data_dir=tmp_path)
    assert not everything(tmp_path)


def test_interrupted_leaves_no_trace(tmp_path, server, mnist_files):
    server.update(mnist_files | {"t10k-images-idx3-ubyte.gz": KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        load("mnist", data_dir=tmp_path)
    assert not everything(tmp_path)


def test_archives_put_by_hand_are_enough(tmp_path, server, mnist_files):
    (tmp_path/"MNIST"/"raw").mkdir(parents=True)
    for name, data in mnist_files.items():
        (tmp_path/"MNIST"/"raw"/name).write_bytes(data)
    assert len(load("mnist", data_dir=tmp_path).images) == 12


def test_only_what_is_missing_is_named_and_what_is_there_stays(tmp_path, server, mnist_files):
    (tmp_path/"MNIST"/"raw").mkdir(parents=True)
    good, bad, *missing = mnist_files
    (tmp_path/"MNIST"/"raw"/good).write_bytes(mnist_files[good])
    (tmp_path/"MNIST"/"raw"/bad).write_bytes(b"cut short")
    before = everything(tmp_path)
    with pytest.raises(FileNotFoundError) as e:
        load("mnist", data_dir=tmp_path)
    assert f"the checksum of MNIST/raw/{bad} is wrong" in str(e.value).replace("\\", "/")
    assert good not in str(e.value) and all(name in str(e.value) for name in missing)
    assert everything(tmp_path) == before and (tmp_path/"MNIST"/"raw"/bad).read_bytes() == b"cut short"
    server.update(mnist_files)
    assert len(load("mnist", data_dir=tmp_path).images) == 12


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", b"\0\0\x08\x03\0\0\0\x0c"])
def test_damaged_files_are_named_and_left_alone(tmp_path, server, mnist_files, content):
    (tmp_path/"MNIST"/"raw").mkdir(parents=True)
    for name, data in mnist_files.items():
        (tmp_path/"MNIST"/"raw"/name[:-3]).write_bytes(gzip.decompress(data))
    (tmp_path/"MNIST"/"raw"/"train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match="the files of mnist in .* can't be read .*: delete them$"):
        load("mnist", data_dir=tmp_path)
    assert (tmp_path/"MNIST"/"raw"/"train-images-idx3-ubyte").read_bytes() == content


def test_a_download_that_cannot_be_written(tmp_path, server, mnist_files):
    (tmp_path/"file").write_text("not a folder")
    with pytest.raises(FileNotFoundError, match="could not be downloaded"):
        load("mnist", data_dir=tmp_path/"file")


def test_an_empty_raw_folder_is_not_mnist(tmp_path, server, mnist_files):
    (tmp_path/"MNIST"/"raw").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="mnist is not in .*put MNIST/raw/train-images"):
        load("mnist", data_dir=tmp_path)
    assert not any((tmp_path/"MNIST"/"raw").iterdir())


def obtained(want, make, files, **more):
    return sources._obtained(want, make, files, "digits", **more)


def test_a_folder_below_is_downloaded_into(tmp_path, server):
    seen = []
    def make(root, download=False):
        seen.append(Path(root).name)
        if download:
            Path(root).mkdir(), (Path(root)/"f").write_text("x")
        if not (Path(root)/"f").exists():
            raise RuntimeError("Dataset not found")
        return (Path(root)/"f").read_text()
    assert obtained(Want("x", data_dir=tmp_path), make, [], under="SVHN") == "x" and set(seen) == {"SVHN"}


def test_tables_in_place_of_files_are_named(tmp_path):
    def make(root, download=False):
        raise RuntimeError("Dataset not found or corrupted. You can use download=True to download it")
    (tmp_path/"a.csv").write_text("image_id,partition")
    with pytest.raises(FileNotFoundError, match="tables such as a.csv are not read in their place: put a.txt there"):
        obtained(Want("x", data_dir=tmp_path), make, [(Path("a.txt"), None)])


def test_a_download_stopped_while_it_is_moved_loses_nothing(tmp_path, server, mnist_files, monkeypatch):
    server.update(mnist_files)
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as m:
        m.setattr(sources.os, "replace", full)
        with pytest.raises(FileNotFoundError, match="could not be downloaded .*No space left on device.: put"):
            load("mnist", data_dir=tmp_path)
    assert not everything(tmp_path)
    assert len(load("mnist", data_dir=tmp_path).images) == 12
