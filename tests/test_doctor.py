"The doctor: planted failures are named, a healthy run is left alone, and what a history alone can show."
import csv
import re
import sys

import pytest
import torch
from torch import nn

from dcgan.checkpoints import RunFolder, write_history
from dcgan.doctor import RULES, Doctor, Record, apart, both_ways, diagnose, moved, norm, read, variety
from dcgan.networks import Generator, latent
from dcgan.shapes import Row
from dcgan.training import STATS, Trainer
from dcgan.weights import ASSETS

from notebooks import ROOT
from notebooks import checks as exercises

sys.path.insert(0, str(ROOT / "bench"))
import doctor as bench  # noqa: E402

LESSON = ROOT / "nbs/11_failures.ipynb"
CALM = {"step": 10, "loss_d": 1.2, "loss_g": 0.9, "d_x": 0.6, "d_gz_before": 0.4, "d_gz_after": 0.45,
        "grad_g": 1., "grad_d": 2., "moved_g": 0.02, "moved_d": 0.02, "eval": 0, "change": 0.1,
        "low": -1., "high": 1., "variety": 0.8, "drift": 0.1}
WRONG = {  # rule: what a check shows that breaks it
    "not finite": {"loss_g": float("nan")}, "range": {"low": 0.}, "eval mode": {"eval": 3},
    "D stands still": {"moved_d": 0.}, "no gradient": {"grad_g": 0.}, "G stands still": {"change": 0.},
    "rates": {"moved_g": 1.}, "pinned": {"loss_d": 1.3863},
    "same answer": {"d_x": 0.99, "d_gz_before": 0.985}, "D is fooled": {"d_x": 0.4, "d_gz_before": 0.8},
    "collapse": {"variety": 0.01}, "D wins": {"d_x": 0.999, "d_gz_before": 0.001}, "drift": {"drift": 0.9},
}


def checks(wrong=None, steps=300):
    "A check every ten steps; the loss wanders a little unless the failure pins it."
    for step in range(10, steps, 10):
        yield CALM | {"step": step, "loss_d": 1.2 + step / 1e4} | (wrong or {})


def found(wrong=None, steps=300):
    record = Record()
    for check in checks(wrong, steps):
        record.see(check)
    return record.found


# Rules

def test_every_rule_has_its_case():
    names = [rule.name for rule in RULES]
    assert len(names) == len(set(names)) and set(names) == WRONG.keys()


@pytest.mark.parametrize("name", WRONG)
def test_a_rule_names_its_failure(name):
    finding, = found(WRONG[name])
    assert finding.name == name
    assert finding.since in (10, 20), "pinned compares with the check before"


@pytest.mark.parametrize("rule", RULES, ids=[rule.name for rule in RULES])
def test_a_sentence_says_what_since_when_and_what_to_try(rule):
    sentence = found(WRONG[rule.name])[0].sentence
    assert re.search(r"step (10|20)\b", sentence) and sentence.endswith(".") and ". " not in sentence, "one sentence"
    what, _, advice = sentence.partition(": ")
    assert len(what.split()) > 5 and len(advice.split()) >= 4 and "{" not in sentence


def test_a_calm_run_has_no_findings():
    assert found() == []


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.lasts], ids=lambda rule: rule.name)
def test_what_does_not_last_is_not_said(rule):
    "One check too few, and the same failure on every other check."
    assert found(WRONG[rule.name], rule.lasts + 10) == []
    record = Record()
    for i, (good, bad) in enumerate(zip(checks(), checks(WRONG[rule.name]))):
        record.see(bad if i % 2 else good)
    assert record.found == []


def test_a_cause_silences_its_symptoms_and_comes_after_them():
    both = WRONG["D wins"] | WRONG["range"]
    assert [f.name for f in found(both)] == ["range"]
    record = Record()
    for check in checks(WRONG["D wins"]):
        record.see(check)
    record.see(CALM | {"step": 300} | both)
    assert [f.name for f in record.found] == ["D wins", "range"], "a cause that shows later is still said"
    assert not record.see(CALM | {"step": 310} | both), "each once"


# Numbers

def test_variety_and_steps():
    x = torch.randn(16, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    assert variety(x, x) == 1 and variety(x[:1].repeat(16, 1, 1, 1), x) < 1e-3
    assert variety(torch.cat([x[:2]] * 8), x) < 1e-3, "two kinds of images"
    assert variety(x, torch.zeros_like(x)) > 1, "no division by zero"
    assert apart(torch.tensor([0., 3.]).view(2, 1, 1, 1)) == 3
    assert norm([torch.tensor([3.]), torch.tensor([[4.]])]) == 5 and norm([]) == 0
    assert moved([torch.tensor([3., 4.])], [torch.tensor([3., 5.])]) == pytest.approx(0.2)


@pytest.mark.parametrize("mode", (True, False))
def test_both_ways_leaves_the_generator_alone(mode):
    G = Generator([Row("conv_t", 4, 3, norm=True, act="relu"), Row("conv_t", 1, 4, 2, act="tanh")], 5).train(mode)
    before = {k: v.clone() for k, v in G.state_dict().items()}
    z = latent(8, 5)
    seen, drawn = both_ways(G, z)
    assert G.training == mode and all(torch.equal(v, before[k]) for k, v in G.state_dict().items())
    with torch.no_grad():
        assert torch.equal(drawn, G.eval()(z))
        assert torch.equal(seen, G.train(mode)(z)), "as training sees them, in whatever mode it is"
    assert torch.equal(seen, drawn) != mode


# Runs

@pytest.fixture(scope="module")
def images():
    torch.set_num_threads(1)
    return bench.small_digits()


SLOW = "BatchNorm's momentum 0.001", "D learns a hundred times faster"  # the others are named within fifty steps


@pytest.mark.parametrize("case", [case for case in bench.PLANTED if case not in (*SLOW, "healthy patient")])
def test_a_planted_failure_is_named(case, images):
    trainer, doctor = bench.planted(case, 0, images)
    assert [f.name for f in doctor.found] == [bench.PLANTED[case][0]]
    assert not trainer.D._forward_pre_hooks, "it listens no more"


def test_a_healthy_run_is_left_alone(images):
    "No finding, and the same run to the last bit as without the doctor, the global generator included."
    recipe = bench.replace(bench.HEALTHY, epochs=1)
    doctor = Doctor()
    torch.manual_seed(0)
    watched, after = Trainer(recipe, images, callbacks=[doctor]).train(), torch.get_rng_state()
    torch.manual_seed(0)
    alone = Trainer(recipe, images).train()
    assert torch.equal(after, torch.get_rng_state())
    assert doctor.found == [] and [c["step"] for c in doctor.checks] == [1, *range(10, 63, 10)]
    for name, part in alone.parts().items():
        if isinstance(part, nn.Module):
            other = watched.parts()[name].state_dict()
            assert all(torch.equal(v, other[k]) for k, v in part.state_dict().items()), name


def test_one_bad_step_between_checks_is_said_at_the_end(images):
    said = []
    doctor = Doctor(say=said.append)
    with pytest.raises(FloatingPointError, match="step 31"):
        bench.Broken(bench.HEALTHY, images, callbacks=[doctor]).train()
    assert [f.since for f in doctor.found] == [31] and len(said) == 1 and "step 31" in said[0]


def test_range_is_read_inside_the_border(images):
    "A shift fills the border with -1: images in [0, 1] are seen all the same."
    doctor = Doctor(say=lambda sentence: None)
    recipe = bench.replace(bench.HEALTHY, epochs=1, shift=2)
    trainer = bench.Rescaled(recipe, images[:64], callbacks=[doctor]).train()
    assert trainer.step == 2 and [f.name for f in doctor.found] == ["range"]


@pytest.mark.parametrize("every", (0, -1, 2.5, "10", True))
def test_every_must_be_a_number_of_steps(every):
    with pytest.raises(ValueError, match="whole number of steps"):
        Doctor(every=every)


# Histories

def rows(wrong=None):
    return [{k: check[k] for k in ("step", *STATS)} for check in checks(wrong)]


@pytest.mark.parametrize("name", ("not finite", "same answer", "pinned", "D is fooled", "D wins"))
def test_a_history_shows_some_failures(name):
    assert [f.name for f in diagnose(rows(WRONG[name]))] == [name]
    as_text = [{k: str(v) for k, v in row.items()} | {"digit_fid": ""} for row in rows(WRONG[name])]
    assert [f.name for f in diagnose(as_text)] == [name]


def test_a_calm_history_is_calm():
    assert diagnose(rows()) == diagnose([]) == []


def test_the_shipped_runs_are_calm():
    folders = [path.parent for path in ASSETS.glob("*/history.csv")]
    assert folders
    for folder in folders:
        sentence, = read(folder)
        assert sentence.startswith("The history shows nothing wrong")


@pytest.mark.parametrize("bad, words", (([{"loss_d": 1.}], "needs a step"), ([{}], "needs a step"),
                                        ([{"step": 5, "loss_d": "high"}], "step 5 "),
                                        ([{"step": "first"}], "numbers"), ([{"step": float("inf")}], "numbers")))
def test_what_is_no_history_is_one_sentence(bad, words):
    with pytest.raises(ValueError, match=words) as e:
        diagnose(bad)
    assert str(e.value).endswith(".") and "\n" not in str(e.value)


def test_a_folder_is_read(tmp_path, tiny, images):
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        read(tmp_path / "nowhere")
    sentence, = read(tmp_path)
    assert "holds no history.csv" in sentence
    (tmp_path / "history.csv").write_text("step,loss_d\n")
    assert read(tmp_path) == [f"{tmp_path / 'history.csv'} holds no rows yet."]
    write_history(rows(WRONG["D wins"]), tmp_path / "history.csv")
    sentence, = read(tmp_path)
    assert "D is sure of every image since step 10" in sentence
    (tmp_path / "history.csv").write_bytes(b"step\n\xff\xfe")
    with pytest.raises(ValueError, match="numbers"):
        read(tmp_path)


def test_a_run_folder_is_read(tmp_path):
    from dcgan.data import digits
    from dcgan.recipes import RECIPES
    torch.set_num_threads(1)
    recipe = RECIPES["digits"].replace(filters=4, images=64, batch_size=32, epochs=2, log_every=1, shift=0)
    doctor = Doctor(every=2)
    Trainer(recipe, digits()[0][:64], callbacks=[RunFolder(tmp_path / "run", pictures=False), doctor]).train()
    assert read(tmp_path / "run")[0].startswith("The history shows nothing wrong in 4 rows to step 4;")
    assert [c["step"] for c in doctor.checks] == [1, 2, 4] and doctor.found == []


def test_a_conditional_run_is_watched():
    "The fixed samples ask for the classes in turn."
    from dcgan.data import digits
    from dcgan.recipes import RECIPES
    images, labels = (t[::40] for t in digits())
    doctor = Doctor(every=2)
    recipe = RECIPES["digits-conditional"].replace(filters=4, images=len(images), batch_size=32, epochs=1, shift=0)
    Trainer(recipe, images, labels=labels, callbacks=[doctor]).train()
    assert doctor.found == [] and "variety" in doctor.checks[-1]
    assert doctor.labels.tolist() == [i % 10 for i in range(32)]


def test_a_resumed_run_is_not_compared_with_its_first_weights(tmp_path, images):
    "The doctor stands before the folder, which loads the state only after the doctor has begun."
    from dcgan.data import digits
    from dcgan.recipes import RECIPES
    recipe = RECIPES["digits"].replace(filters=4, images=64, batch_size=32, epochs=2, shift=0)
    Trainer(recipe, digits()[0][:64], callbacks=[RunFolder(tmp_path / "run", pictures=False)]).train()
    doctor = Doctor(every=2)
    folder = RunFolder(tmp_path / "run", resume=True, pictures=False)
    Trainer(recipe.replace(epochs=4), digits()[0][:64], callbacks=[doctor, folder]).train()
    assert [c["step"] for c in doctor.checks] == [6, 8] and doctor.found == []


# The measured table, and the exercises

def test_the_table_holds_what_the_lesson_says():
    with open(ASSETS / "doctor.csv", newline="", encoding="utf-8") as f:
        measured = list(csv.DictReader(f))
    for case, (expected, *_) in bench.PLANTED.items():
        mine = [row for row in measured if row["case"] == case]
        assert sorted(int(row["seed"]) for row in mine) == list(bench.SEEDS), case
        assert {row["expected"] for row in mine} == {expected}
        assert sum(row["named"] == expected for row in mine) >= (9 if expected else 10), case
    others = [row for row in measured if row["case"] not in bench.PLANTED]
    assert {row["case"] for row in others} == set(bench.RECIPES) and not [row for row in others if row["named"]]


def forgets(G, z):
    with torch.no_grad():
        return G.eval()(z)


def always_trains(G, z):
    try:
        return forgets(G, z)
    finally:
        G.train()


def not_finally(G, z):
    was = G.training
    images = forgets(G, z)
    G.train(was)
    return images


def with_graph(G, z):
    was = G.training
    try:
        return G.eval()(z)
    finally:
        G.train(was)


def in_train_mode(G, z):
    with torch.no_grad():
        return G(z)


ANSWERS = {
    "spread": {
        "the variance, without the root": lambda f, r: (f.var(0).mean() / r.var(0).mean()).item(),
        "over all numbers at once": lambda f, r: (f.std() / r.std()).item(),
        "the mean of the roots": lambda f, r: (f.std(0).mean() / r.std(0).mean()).item(),
        "not divided": lambda f, r: f.var(0).mean().sqrt().item(),
        "over the pixels": lambda f, r: (f.flatten(1).var(1).mean() / r.flatten(1).var(1).mean()).sqrt().item(),
    },
    "jumps": {
        "upwards only": lambda c, b, m: bool(b) and not c["loss_g"] - b["loss_g"] <= m,
        "nan is none": lambda c, b, m: bool(b) and abs(c["loss_g"] - b["loss_g"]) > m,
        "the first check jumps": lambda c, b, m: not abs(c["loss_g"] - b.get("loss_g", 0)) <= m,
        "as a level": lambda c, b, m: bool(b) and not c["loss_g"] <= m,
    },
    "draw": {"forgets": forgets, "always trains": always_trains, "no finally": not_finally,
             "with its graph": with_graph, "in train mode": in_train_mode},
}


@pytest.mark.parametrize("name, wrong", [(name, wrong) for name, answers in ANSWERS.items() for wrong in answers])
def test_a_wrong_answer_is_refused(name, wrong):
    with pytest.raises(AssertionError) as refused:
        exercises(LESSON)[name](ANSWERS[name][wrong])
    assert len(str(refused.value).split()) >= 4, "the message helps"


def test_every_exercise_has_its_wrong_answers():
    assert set(exercises(LESSON)) == set(ANSWERS) and all(len(answers) >= 3 for answers in ANSWERS.values())
