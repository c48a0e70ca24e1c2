"The widgets of lessons 01 and 10: what they show follows their controls, and a fault is a sentence in them."
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from dcgan.checkpoints import replay, sheets_of, write_history
from dcgan.game import Ring, play_ring, players
from dcgan.plots import LINES, curves


@pytest.fixture(autouse=True)
def widgets():
    torch.set_num_threads(1)
    return pytest.importorskip("ipywidgets")


def pixels(picture):
    return np.asarray(Image.open(BytesIO(picture.value)).convert("RGB"))


# The game in the plane

def controls(box):
    (clock, one, again), g, d, text, picture = box.children[0].children, *box.children[1:]
    return clock, one, again, g, d, text, picture


def test_one_step_and_start_again():
    clock, one, again, g, d, text, picture = controls(play_ring(seed=1))
    before = picture.value
    assert text.value.startswith("step 0: ")
    for _ in range(3):
        one.click()
    assert text.value.startswith("step 3: ") and picture.value != before
    again.click()
    assert text.value.startswith("step 0: ") and picture.value == before


def test_it_plays_and_stops():
    clock, *_, text, picture = controls(play_ring(turn=4))
    for tick in 1, 2, 3:
        before = picture.value
        clock.value = tick
        assert text.value.startswith(f"step {4 * tick}: ") and picture.value != before
    clock.value = 0  # what its stop button does
    assert text.value.startswith("step 0: ")


@pytest.mark.parametrize("moved, other", [(0, 1), (1, 0)], ids=["G's rate", "D's rate"])
def test_a_rate_changes_its_player(moved, other):
    game, twin = Ring(), Ring()
    rates = [2e-3, 2e-3]
    twin.step(*rates)
    rates[moved] = 1e-1
    game.step(*rates)
    same = [all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))
            for one, two in ((game.G, twin.G), (game.D, twin.D))]
    if moved == 0:
        assert same == [False, True], "D moves first, so in one step it does not feel G's rate"
    else:
        assert same[1] is False


def test_sliders_reach_the_game():
    found = []
    for low in False, True:
        clock, one, again, g, d, text, picture = controls(play_ring())
        if low:
            g.value, d.value = 1e-5, 1e-5
        one.click()
        found.append(picture.value)
    assert found[0] != found[1]


def test_a_game_that_bursts_says_so():
    clock, one, again, g, d, text, picture = controls(play_ring())
    g.max = d.max = 30
    g.value = d.value = 1e30
    for _ in range(5):
        one.click()
    assert "start again, with lower rates" in text.value
    again.click()
    assert text.value.startswith("step 0: ")


def test_the_ring_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    Ring(3).step()
    assert torch.equal(torch.rand(3), wanted)
    a, b = players(0)[0][0].weight, players(1)[0][0].weight
    assert torch.equal(a, players(0)[0][0].weight) and not torch.equal(a, b)


@pytest.mark.parametrize("call, words", [
    (lambda: Ring(-1), "seed is -1"), (lambda: Ring().step(0, 1), "above 0"), (lambda: Ring().step(1, float("nan")), "above 0"),
    (lambda: play_ring(turn=0), "turn is 0")])
def test_senseless_games(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# A run replayed

ROWS = [{"step": s, "epoch": s // 20} | {key: 0.5 + s / 100 for key in LINES} for s in range(5, 41, 5)]


@pytest.fixture
def run(tmp_path):
    (tmp_path / "samples").mkdir()
    for step in 0, 20, 40:
        Image.new("RGB", (66, 34), (6 * step, 0, 0)).save(tmp_path / f"samples/step-{step:07d}.png")
    (tmp_path / "samples/.step-0000060.png.77").write_bytes(b"half")
    (tmp_path / "samples/notes.png").write_bytes(b"mine")
    write_history(ROWS, tmp_path / "history.csv")
    return tmp_path


def test_the_slider_goes_through_a_run(run):
    slider, text, picture, plot = replay(run).children
    assert slider.options == (0, 20, 40) and slider.value == 40 and text.value == "step 40 of 40"
    seen = {}
    for step in slider.options:
        slider.value = step
        seen[step] = pixels(plot)
        assert text.value == f"step {step} of 40"
        assert (pixels(picture) == (6 * step, 0, 0)).all(), "that step's picture, pixel for pixel"
    assert (seen[0] != seen[20]).any() and (seen[20] != seen[40]).any(), "and the curves up to there"


def test_curves_are_cut_and_axes_stay():
    whole, part = curves(ROWS), curves(ROWS, until=20)
    for before, after in zip(whole.axes, part.axes):
        assert before.get_xlim() == after.get_xlim() and before.get_ylim() == after.get_ylim()
        named = [line for line in after.lines if not line.get_label().startswith("_")]
        assert named and all(max(line.get_xdata()) == 20 for line in named)
    assert all(len(line.get_xdata()) == 0 for line in curves(ROWS, until=0).axes[0].lines)


def test_a_run_without_a_history_shows_its_pictures(run):
    (run / "history.csv").unlink()
    slider, text, picture, plot = replay(run).children
    assert pixels(picture).shape == (34, 66, 3) and plot.value == b""


def test_a_broken_picture_is_a_sentence_in_the_widget(run):
    (run / "samples/step-0000020.png").write_text("a,b\n1,2\n")
    slider, text, picture, plot = replay(run).children
    slider.value = 20
    assert "step-0000020.png" in text.value and "\n" not in text.value and picture.value == plot.value == b""
    slider.value = 40
    assert picture.value and plot.value and text.value == "step 40 of 40"


def test_a_broken_history_is_a_sentence_in_the_widget(run):
    (run / "history.csv").write_text("a,b\n1,2\n")
    slider, text, picture, plot = replay(run).children
    assert "a history row needs" in text.value and "\n" not in text.value and picture.value == plot.value == b""


@pytest.mark.parametrize("name", ["nowhere", "empty", "file"])
def test_a_missing_run_is_a_sentence_in_the_widget(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    only, = replay(tmp_path / name).children
    assert "holds no pictures" in only.value and name in only.value and "\n" not in only.value


def test_only_pictures_of_steps_count(run):
    (run / "samples/step-last.png").write_bytes(b"mine")
    assert list(sheets_of(run)) == [0, 20, 40]


def test_markup_in_a_folder_s_name_is_shown_as_it_is(tmp_path):
    only, = replay(tmp_path / "<b>x").children
    assert "&lt;b&gt;x" in only.value


def test_without_ipywidgets_the_command_is_named(monkeypatch, run):
    import sys
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    for widget in lambda: replay(run), play_ring:
        with pytest.raises(ImportError, match="pip install ipywidgets"):
            widget()
