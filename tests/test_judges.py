"The judge: its table, its training, the one that ships, and the cache of those made on demand."
import json
import os

import pytest
import torch

from dcgan.data import to_x
from dcgan.datasets.drawn import FACTORS, face_factors, faces
from dcgan.datasets.files import Bank
from dcgan.datasets.sources import load
from dcgan.evaluation.judge import (
    QUESTIONS,
    Judge,
    accuracy,
    digit_judge,
    face_labels,
    judge_for,
    judge_layers,
    labels_of,
    moved,
    train_judge,
)
from dcgan.evaluation.metrics import judge_report
from dcgan.networks import generator_for
from dcgan.shapes import shape_table
from dcgan.weights import ASSETS, shipped

from notebooks import ROOT


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def test_digits():
    return load("digits", split="test")


def some_bank(name="things", n=200, shape=(1, 12, 12)):
    "Squares in one of four corners; the corner is the label."
    g = generator_for(0, 9)
    labels = torch.randint(4, (n,), generator=g)
    images = torch.randint(60, (n, *shape), generator=g, dtype=torch.uint8)
    for image, k in zip(images, labels.tolist()):
        image[:, 6 * (k // 2):6 * (k // 2) + 6, 6 * (k % 2):6 * (k % 2) + 6] += 150
    return Bank(images, labels, name)


def test_the_shipped_judge_knows_digits_it_never_saw(test_digits):
    right, = accuracy(digit_judge(), test_digits.images, test_digits.labels)
    report = json.loads((ASSETS / "judges/digits/report.json").read_text())
    assert right >= .99 and abs(right - report["accuracy"]) <= .003
    assert {"command", "date", "machine", "seed", "floor", "crossfit_floor"} <= set(report)


def test_the_shipped_judge_is_small_and_no_generator():
    assert (ASSETS / "judges/digits/model.safetensors").stat().st_size <= 1_000_000
    assert sorted(os.listdir(ASSETS / "judges/digits")) == ["config.json", "model.safetensors", "report.json"]
    assert not any("judge" in name for name in shipped())


@pytest.mark.parametrize("n", [1, 2, 5])
def test_an_image_is_judged_alone(n, test_digits):
    "In eval mode: not by its neighbours in the batch."
    judge, x = digit_judge(), to_x(test_digits.images[::200])
    with torch.no_grad():
        assert not judge.training and torch.allclose(judge(x[:n]), judge(x)[:n], atol=1e-4)
        assert torch.equal(judge.head(judge.features(x)), judge(x))
        assert judge.features(x[:n]).shape == (n, 64) and judge(x[:n]).shape == (n, 10)


@pytest.mark.parametrize(
    "shape, words", [((1, 64, 64), ["64×64 with 1 channel,"]), ((3, 28, 28), ["28×28 with 3 channels,"])]
)
def test_other_images_are_refused(shape, words):
    with pytest.raises(ValueError) as e:
        digit_judge()(torch.zeros(2, *shape))
    assert all(w in str(e.value) for w in [*words, "28×28 with 1"])


@pytest.mark.parametrize("side, seen", [(8, 2), (28, 7), (32, 8), (33, 5), (64, 8), (128, 8)])
def test_layers_fit_every_size(side, seen):
    table = shape_table(judge_layers((3, side, side)), (3, side, side))
    assert table.out_shape == (64,) and table[-2].out_shape[1] == seen


def test_moved_is_small_seeded_and_never_a_mirror():
    x = to_x(load("digits").images[800:1200:10])
    a, b = moved(x, generator_for(0, 1)), moved(x, generator_for(0, 1))
    assert torch.equal(a, b) and a.shape == x.shape and not torch.equal(a, x) and a.abs().max() <= 1 + 1e-5
    assert torch.allclose(moved(x, generator_for(0, 1), 0.), x, atol=1e-4)
    assert ((x - a).square().sum((1, 2, 3)) < (x.flip(3) - a).square().sum((1, 2, 3))).float().mean() > .9


def test_training_learns_and_repeats():
    bank, before = some_bank(), torch.get_rng_state()
    a, b, c = (
        train_judge(bank.images, bank.labels, epochs=6, augment=0.0, seed=seed, width=4, features=8, batch=20)
        for seed in (0, 0, 1)
    )
    x = to_x(bank.images)
    assert torch.equal(before, torch.get_rng_state()), "the global generator is left as it was"
    assert torch.equal(a(x), b(x)) and not torch.equal(a(x), c(x)) and not a.training
    assert accuracy(a, bank.images, bank.labels)[0] > .9
    wrong = accuracy(a, bank.images, (bank.labels + 1) % 4)[0]
    assert wrong < .1, "accuracy is measured against the labels given"


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="needs at least 100 images to learn from, these are 99"):
        train_judge(*some_bank(n=99)[:2])


def test_several_questions_are_answered_each():
    bank = some_bank()
    labels = torch.stack([bank.labels, bank.labels % 2], 1)
    judge = train_judge(bank.images, labels, epochs=12, augment=0., width=4, features=8, batch=20)
    assert judge.classes == (4, 2) and [a.shape for a in judge.answers(judge(to_x(bank.images)))] == [
        (200, 4),
        (200, 2),
    ]
    assert all(right > .9 for right in accuracy(judge, bank.images, labels))


def test_it_survives_saving(tmp_path):
    bank = some_bank()
    judge = train_judge(bank.images, bank.labels, epochs=1, width=4, features=8)
    judge.save_pretrained(tmp_path)
    again = Judge.from_pretrained(tmp_path)
    assert torch.equal(judge(to_x(bank.images)), again(to_x(bank.images))) and again.classes == (4,)


def test_factors_become_answers():
    labels, drawn = face_labels(50), face_factors(50)
    assert labels.shape == (50, len(QUESTIONS)) and set(QUESTIONS) == set(FACTORS) - {"x", "y", "size"}
    assert labels[:, QUESTIONS.index("hat")].tolist() == drawn["hat"].tolist()
    assert labels[:, QUESTIONS.index("background")].tolist() == drawn["background"].tolist()
    steps = labels[:, QUESTIONS.index("smile")]
    assert steps.min() >= 0 and steps.max() <= 4
    assert all((drawn["smile"][i] < drawn["smile"][j]) for i in (steps == 0).nonzero() for j in (steps == 4).nonzero())


def test_labels_are_those_of_the_faces_in_the_bank():
    "Drawn again from the factors that the labels stand for."
    train, test = load("faces", images=20), load("faces", split="test", images=20)
    for bank, split, start in (train, "train", 0), (test, "test", 10_000_000):
        images, drawn = faces(20, 0, start)
        assert torch.equal(images, bank.images)
        assert labels_of(bank, split)[:, QUESTIONS.index("glasses")].tolist() == drawn["glasses"].tolist()


def test_no_labels_are_said():
    with pytest.raises(ValueError, match="celeba has no labels"):
        judge_for(Bank(torch.zeros(200, 3, 64, 64, dtype=torch.uint8), None, "celeba"))


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_digits_get_the_shipped_judge(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    judge = judge_for(some_bank(name))
    assert judge.in_shape == (1, 28, 28) and not os.listdir()


def test_a_judge_is_made_once(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("DCGAN_CACHE", raising=False)
    bank, x = some_bank(), to_x(some_bank().images)
    first = judge_for(bank, tmp_path, epochs=2)
    assert "judge of things: trained once, on 200 images" in capsys.readouterr().out
    monkeypatch.setattr("dcgan.evaluation.judge.train_judge", lambda *a, **k: pytest.fail("trained again"))
    again = judge_for(bank, tmp_path, epochs=2)
    assert torch.equal(first(x), again(x)) and capsys.readouterr().out == "" and not again.training
    assert [p.name[:13] for p in (tmp_path / "cache").iterdir() if p.is_dir()] == ["judge-things-"]


def test_other_data_get_another_judge(tmp_path, monkeypatch):
    monkeypatch.setenv("DCGAN_CACHE", str(tmp_path / "mine"))
    bank = some_bank()
    judge_for(bank, epochs=1)
    judge_for(bank._replace(labels=(bank.labels + 1) % 4), epochs=1)
    changed = bank.images.clone()
    changed[0, 0, 0, 0] += 1
    judge_for(bank._replace(images=changed), epochs=1)
    judge_for(bank, epochs=2)
    judge_for(bank._replace(name="folder:some/where"), epochs=1)
    names = sorted(p.name for p in (tmp_path / "mine").iterdir() if p.is_dir())
    assert len(names) == 5 and names[0].startswith("judge-folder-")


@pytest.mark.parametrize("damage", ["cut", "gone", "config"])
def test_a_damaged_judge_is_made_anew(tmp_path, capsys, damage):
    bank, x = some_bank(), to_x(some_bank().images)
    first = judge_for(bank, tmp_path, epochs=1)
    folder, = (p for p in (tmp_path / "cache").iterdir() if p.is_dir())
    if damage == "cut":
        (folder / "model.safetensors").write_bytes(b"\0" * 20)
    if damage == "gone":
        (folder / "model.safetensors").unlink()
    if damage == "config":
        (folder / "config.json").write_text("{")
    capsys.readouterr()
    again = judge_for(bank, tmp_path, epochs=1)
    assert "trained once" in capsys.readouterr().out and torch.equal(first(x), again(x))


def test_an_interrupted_training_leaves_nothing(tmp_path, monkeypatch):
    def stop(*a, **k):
        raise KeyboardInterrupt
    monkeypatch.setattr(Judge, "save_pretrained", stop)
    with pytest.raises(KeyboardInterrupt):
        judge_for(some_bank(), tmp_path, epochs=1)
    assert not [p for p in (tmp_path / "cache").iterdir() if p.is_dir()]


def test_remake_writes_judge_and_report(tmp_path, monkeypatch):
    "With little training, on a tenth of the judge: the same function as `make judge`."
    monkeypatch.syspath_prepend(ROOT / "bench")
    import judge as bench
    small = bench.train_judge
    monkeypatch.setattr(
        bench, "train_judge", lambda images, labels, epochs: small(images[::2], labels[::2], epochs, width=4)
    )
    report = bench.remake(tmp_path / "new", epochs=1)
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["config.json", "model.safetensors", "report.json"]
    assert set(json.loads((tmp_path / "new/report.json").read_text())) == set(judge_report()) == set(report)
    assert (
        Judge.from_pretrained(tmp_path / "new").table.params
        == Judge(judge_layers((1, 28, 28), 4), (1, 28, 28), [10]).table.params
    )
