"Reports: what a generator is measured against, the same numbers twice, and a callback that leaves a run as it is."
import os
import signal

import pytest
import torch

from dcgan.data import order, to_x
from dcgan.datasets.files import Bank
from dcgan.datasets.sources import load
from dcgan.evaluation.judge import digit_judge, judge_for
from dcgan.evaluation.reports import (
    Evaluation,
    FidCallback,
    Reference,
    _rounded,
    _small,
    earlier,
    evaluate,
    in_words,
    page,
    reference_for,
    there_and_back,
)
from dcgan.plots import curves
from dcgan.recipes import RECIPES
from dcgan.training import Trainer
from dcgan.weights import ASSETS, shipped

from running import train


@pytest.fixture(scope="module")
def few():
    "The digits' judge, with 400 training digits and 200 held out."
    torch.set_num_threads(1)
    def some(split, step):
        bank = load("digits", split=split)
        return Bank(bank.images[::step], bank.labels[::step], "digits")
    return Reference("digit-FID", digit_judge(), some("train", 10), some("test", 5))


class Chooser(torch.nn.Module):
    "A generator that draws from a bank."
    def __init__(self, images):
        super().__init__()
        self.images = images
    def sample(self, n, seed=0):
        return to_x(self.images[order(len(self.images), 3, seed)[:n]])


@pytest.fixture(scope="module")
def fresh(few):
    "Evaluated: a generator of training digits that the reference does not hold."
    return evaluate(Chooser(load("digits").images[5::10]), few, n=300, seeds=3)


def test_real_digits_look_real(fresh):
    v = fresh.numbers
    assert v["metric"] == "digit-FID, not Inception FID" and v["samples"] == 300 and v["held_out"] == 200
    assert len(v["fid_seeds"]) == 3 and abs(v["fid"] - sum(v["fid_seeds"]) / 3) < 1e-3 and v["fid_seeds_std"] > 0
    assert .6 < v["fid"] / v["fid_floor"] < 1.6 and abs(v["kernel"]) < .05 and abs(v["kernel_floor"]) < .05
    assert v["precision"] > .6 and v["recall"] > .6 and v["modes"] > 9.5 and v["copies_features"] < .06
    assert abs(sum(v["shares"]) - 1) < 1e-3 and v["judge_accuracy"] > .98
    assert .7 < v["density"] < 1.3 and v["coverage"] > .7 and min(v["coverage_by_class"]) > .5
    assert v["kernel_error"] > 0 and abs(v["kernel"]) < 3 * v["kernel_error"] and .7 < v["held_out_confident"] < 1
    assert set(v["real"]) == {
        "precision", "recall", "density", "coverage", "modes", "confident", "diversity", "shares", "diversity_by_class",
        "coverage_by_class",
    }
    assert not any(v[f"copies_{way}_found"] for way in ("features", "pixels", "relative"))
    assert "fid_floor_processed" not in v, "these images need no resizing"
    assert fresh.x.shape == (64, 1, 28, 28) and fresh.pairs[0].shape == fresh.pairs[1].shape == (20, 1, 28, 28)


def test_evaluated_twice_the_same_numbers(few):
    G, before = RECIPES["digits"].replace(filters=4).networks()[0], torch.get_rng_state()
    once, twice = evaluate(G, few, n=70, seeds=2), evaluate(G, few, n=70, seeds=2)
    assert once.numbers == twice.numbers and in_words(once) == in_words(twice)
    assert torch.equal(before, torch.get_rng_state()), "the global generator is left as it was"
    assert once.numbers["fid"] > 50 * once.numbers["fid_floor"] and once.numbers["precision"] < .1


def test_a_memoriser_is_caught(few, fresh):
    stolen = evaluate(Chooser(few.train.images), few, n=300, seeds=1)
    v = stolen.numbers
    assert v["copies_features"] == v["copies_pixels"] == v["copies_relative"] == 1 and torch.equal(*stolen.pairs)
    assert v["copies_features_found"] and v["copies_pixels_interval"][0] > .98
    assert "more than chance explains, so look for copies: by features, pixels, relative distance with moves" in in_words(stolen)
    assert v["fid"] < 1.3 * fresh.numbers["fid"], "which no other number shows"


class Hider(Chooser):
    "One that moves each image by two pixels."
    def sample(self, n, seed=0):
        x = super().sample(n, seed)
        return torch.nn.functional.pad(x, (2, 0, 0, 2), value=-1)[:, :, 2:, :28]


def test_a_memoriser_that_moves_its_images_is_caught_by_moving_them(few):
    v = evaluate(Hider(few.train.images), few, n=300, seeds=1).numbers
    assert v["copies_relative"] > .9 and v["copies_relative_found"] and not v["copies_pixels_found"]


def test_copies_of_images_outside_the_reference_are_found_among_its_own(few):
    own = load("digits").images[5::10]
    assert evaluate(Chooser(own), few, n=100, seeds=1, own=own).numbers["copies_features"] == 1


def test_a_class_left_out_is_seen(few, fresh):
    bank = load("digits")
    v = evaluate(Chooser(bank.images[bank.labels != 7][5::10]), few, n=300, seeds=1).numbers
    assert (
        v["shares"][7] < 0.01
        and v["modes"] < 9.2 < fresh.numbers["modes"]
        and v["coverage_by_class"][7] < .4 < fresh.numbers["coverage_by_class"][7]
        and v["fid"] > 1.3 * fresh.numbers["fid"]
    )


def test_too_few_samples_are_refused(few):
    with pytest.raises(ValueError, match="64 samples are too few for the covariance of 64 features; at least 65"):
        evaluate(Chooser(few.train.images), few, n=64)


@pytest.mark.parametrize("broken, words", [
    (lambda bank: bank.images.float() / 255, "torch.float32"),
    (lambda bank: bank.images[:, :, 2:26, 2:26], "24×24 with 1 channel, this judge takes 28×28 with 1"),
    (lambda bank: bank.images.repeat(1, 3, 1, 1), "28×28 with 3 channels, this judge takes 28×28 with 1"),
    (lambda bank: None, "expected torch.uint8"),
])
def test_a_reference_of_other_size_or_range_is_refused_before_anything_is_drawn(few, broken, words):
    other = few._replace(held_out=few.held_out._replace(images=broken(few.held_out)))
    G = Chooser(few.train.images)
    G.sample = lambda n, seed=0: pytest.fail("drawn")
    with pytest.raises(ValueError) as e:
        evaluate(G, other, n=100, seeds=1)
    assert words in str(e.value) and "\n" not in str(e.value)


def test_too_few_held_out_images_are_refused(few):
    with pytest.raises(ValueError, match="5 samples are too few for the covariance"):
        held_out = Bank(few.held_out.images[:5], few.held_out.labels[:5], "digits")
        evaluate(Chooser(few.train.images), few._replace(held_out=held_out), n=100, seeds=1)


def test_the_floor_of_the_same_processing(few):
    "Images of 64 pixels are resized for the judge, so real ones take the same way; it costs a little."
    images = torch.nn.functional.interpolate(few.train.images.float(), size=64, mode="bilinear").byte()
    e = evaluate(Chooser(images), few, n=300, seeds=1)
    assert e.numbers["processing"] == "28→64→28" and "resized 28→64→28" in in_words(e)
    assert e.numbers["fid_floor_processed"] == pytest.approx(e.numbers["fid_floor"], rel=.5)
    assert e.numbers["fid_floor_processed"] != e.numbers["fid_floor"]
    x = to_x(few.train.images)
    assert torch.equal(there_and_back(x, 28), x) and (there_and_back(x, 14) - x).abs().mean() > .02


def test_an_earlier_report_is_read(tmp_path):
    (tmp_path / "report.json").write_text('{"note": "mine"}')
    assert earlier(tmp_path / "report.json") == {"note": "mine"}
    assert earlier(tmp_path / "none.json") == {}
    for name in shipped():
        said = earlier(ASSETS / name / "report.json")
        assert said["machine"] and not {"classes", "sure"} & set(said.get("evaluation", ()))


def test_words_and_page_hold_what_matters(fresh, tmp_path):
    words = in_words(fresh)
    assert (
        words.startswith("digit-FID, not Inception FID: ")
        and "floor" in words
        and "bootstrap" in words
        and "cross-fitted" in words
    )
    assert len(words.splitlines()) == 9
    assert all(name in words for name in ("density", "coverage", "modes", "confident", "coverage by class", "no more than chance"))
    figure = page(fresh, "mine")
    figure.savefig(tmp_path / "report.png")
    samples, shares, pairs, near = figure.axes
    assert len(shares.patches) == 20 and [t.get_text() for t in shares.get_legend().get_texts()] == [
        "real",
        "generated",
    ]


def test_one_seed_has_no_spread(few):
    e = evaluate(Chooser(few.train.images), few, n=100, seeds=1)
    assert e.numbers["fid_seeds_std"] == 0 and "over" not in in_words(e).splitlines()[0]


def test_rounded_is_plain():
    assert _rounded({"a": [float("nan"), 1 / 3], "b": {"c": 2}, "d": "x"}) == {
        "a": [None, 0.3333],
        "b": {"c": 2},
        "d": "x",
    }


def test_large_images_are_made_smaller():
    for side, small in (64, 32), (28, 28):
        assert _small(torch.zeros(2, 3, side, side)).shape == (2, 3, small, small)


def test_references_of_digits():
    reference = reference_for("digits", 28, 1)
    assert (reference.name, len(reference.train.images), len(reference.held_out.images)) == ("digit-FID", 4000, 1000)
    for size, channels, words in (64, 1, "64×64 with 1"), (28, 3, "28×28 with 3"):
        with pytest.raises(ValueError, match=f"28×28 with 1 channel, these are {words}; ask for resize=True"):
            reference_for("digits", size, channels)
    assert reference_for("digits", 64, 3, resize=True).train.images.shape == (4000, 1, 28, 28)


def test_reference_of_other_data_has_a_judge_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("DCGAN_CACHE", str(tmp_path))
    monkeypatch.setattr("dcgan.evaluation.reports.load", lambda name, **k: load(name, **(k | {"images": 300})))
    monkeypatch.setattr(
        "dcgan.evaluation.reports.judge_for", lambda bank, data_dir: judge_for(bank, data_dir, epochs=2)
    )
    for data, size, classes in ("house_numbers", 32, (10,)), ("faces", 64, (5, 6, 5, 5, 5, 2, 2, 5)):
        reference = reference_for(data, size, 3)
        assert reference.name == f"{data}-FID" and reference.judge.classes == classes
        e = evaluate(Chooser(reference.train.images), reference, n=100, seeds=1)
        assert (
            isinstance(e, Evaluation)
            and e.numbers["metric"] == f"{data}-FID, not Inception FID"
            and "fid_crossfit_floor_of_2000" not in e.numbers
        )
        assert e.numbers["copies_features"] == 1 and 0 < e.numbers["judge_accuracy"] <= 1
    assert len([p for p in tmp_path.iterdir() if p.is_dir()]) == 2


def test_no_labels_no_judge(tmp_path, monkeypatch):
    from PIL import Image
    for split in "train", "test":
        (tmp_path / split).mkdir()
        for i in range(3):
            Image.new("L", (16, 16), 40 * i).save(tmp_path / split / f"{i}.png")
    monkeypatch.setenv("DCGAN_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ValueError, match="has no labels"):
        reference_for(f"folder:{tmp_path}", 16, 1)


def measured(rows):
    return {row["epoch"]: row["digit_fid"] for row in rows if "digit_fid" in row}


def test_the_callback_measures_when_due_and_changes_nothing(few, tiny):
    plain = train(tiny)
    run = train(tiny, callbacks=[FidCallback(few, 2, n=70)])
    assert list(measured(run.history.rows)) == [1, 3] and not measured(plain.history.rows)
    assert all(torch.equal(a, b) for a, b in zip(plain.best_G.state_dict().values(), run.best_G.state_dict().values()))
    x = run.best_G.sample(70, seed=0)
    from dcgan.evaluation.metrics import frechet, look

    assert measured(run.history.rows)[3] == frechet(
        look(few.judge, x).features, look(few.judge, to_x(few.held_out.images)).features
    )
    assert len(curves(run.history.rows).axes) == 3 and len(curves(plain.history.rows).axes) == 2


def test_the_callback_s_time_is_not_the_run_s(few, tiny, monkeypatch):
    "A slow judge makes no epoch slower in the history. By a clock of ours a step takes a second, a look of the judge a hundred."
    from dcgan import training
    from dcgan.evaluation import reports
    now = 0.

    def lasting(seconds, whole):
        def call(*args):
            nonlocal now
            now += seconds
            return whole(*args)
        return call
    monkeypatch.setattr(training, "perf_counter", lambda: now)
    monkeypatch.setattr(reports, "look", lasting(100, reports.look))
    monkeypatch.setattr(Trainer, "train_generator", lasting(1, Trainer.train_generator))
    run = train(tiny, callbacks=[FidCallback(few, 1, n=70)])
    assert now > run.total + 4 * 100 and sum(row["seconds"] for row in run.history.rows) == run.total


@pytest.mark.parametrize("stop_at", [5, 8])
def test_a_resumed_run_measures_the_same(few, tiny, tmp_path, monkeypatch, stop_at):
    "Stopped in the middle of an epoch and at the end of one that is measured."
    callbacks = [FidCallback(few, 2, n=70)]
    whole = train(tiny, callbacks=callbacks)
    step = Trainer.train_generator
    def stopping(self):
        step(self)
        if self.step == stop_at - 1:
            os.kill(os.getpid(), signal.SIGINT)
    with monkeypatch.context() as m:
        m.setattr(Trainer, "train_generator", stopping)
        first = train(tiny, tmp_path / "run", save_plots=False, callbacks=callbacks)
    assert first.stopped and first.step == stop_at
    second = train(tiny, tmp_path / "run", save_plots=False, callbacks=callbacks, resume=True)
    assert measured(second.history.rows) == measured(whole.history.rows) and list(
        measured(whole.history.rows)
    ) == [1, 3]
    assert (tmp_path / "run/history.csv").read_text().splitlines()[0].endswith(",digit_fid")


def test_the_callback_wants_whole_epochs(few):
    with pytest.raises(ValueError, match="evaluate_every is 0"):
        FidCallback(few, 0)
