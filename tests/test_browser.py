"""Each widget in JupyterLab, in a real browser: run all, move a control, the picture's bytes change.

Then, nothing run: a saved and trusted notebook shows its widgets as they were left, a lesson without a kernel its still.
One server, one page, one kernel for all of them. Needs Chromium, which pip can't install; without it, one line says so.
"""
import json
import os
import re
import shutil
import subprocess
import sys
import time
from urllib.request import urlopen

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

from dcgan.checkpoints import write_history
from dcgan.plots import LINES

from notebooks import ROOT

sys.path.insert(0, str(ROOT / "site"))
from browser import BROWSERS  # noqa: E402

CHROMIUM = next((path for name in BROWSERS if (path := shutil.which(name))), None)
if not CHROMIUM:
    pytest.skip("There is no Chromium here (Debian, Ubuntu: apt install chromium), so the widgets are not driven in it.",
                allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is missing: make setup")

PATIENCE = 240  # seconds that a loaded machine may take for one thing
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
GENERATOR = "import torch\nfrom dcgan.networks import Generator, latent\nG = Generator.from_pretrained('digits')\n"


def slider(which, key):
    "Press a key on one of the sliders, counted from 0."
    return lambda cell: cell.locator(".noUi-handle").nth(which).press(key)


def button(name):
    return lambda cell: cell.get_by_role("button", name=name).click()


WIDGETS = {  # name: the cell that shows it, what a user does to it, one thing after the other
    "shapes": ("from dcgan.shapes import explore\nexplore()", [slider(1, "ArrowRight")]),
    "latent": (GENERATOR + "from dcgan.latent import explorer\n"
               "explorer(G, {'one way': 3 * torch.ones(G.z_dim)})", [slider(0, "ArrowRight")]),
    "calculator": (GENERATOR + "from dcgan.latent import calculator\ncalculator(G, latent(6, G.z_dim, seed=2))",
                   [lambda cell: cell.locator("select").nth(1).select_option(index=4),
                    lambda cell: cell.locator("select").nth(2).select_option(index=[0, 3, 5])]),
    "player": (GENERATOR + "from dcgan.latent import player\nplayer(G, latent(3, G.z_dim, seed=7))",
               [slider(0, "ArrowRight"), lambda cell: cell.locator(".widget-play button").first.click()]),
    "run": ("from dcgan.checkpoints import replay\nreplay('run')", [slider(0, "ArrowLeft")]),
    "eye": ("from dcgan.data import digits, to_x\nfrom dcgan.evaluation.judge import digit_judge\n"
            "from dcgan.evaluation.metrics import judges_eye\nG = Generator.from_pretrained('digits')\n"
            "train, held_out = (to_x(digits(split)[0][::40]) for split in ('train', 'test'))\n"
            "judges_eye(digit_judge(), G.sample(4), train, held_out)", [slider(0, "ArrowRight")]),
    "ring": ("from dcgan.game import play_ring\nplay_ring()", [button("one step")]),
}
STILL = "03_shapes"  # a lesson with a widget; in each of them a picture stands for it
BYTES = """async image => {
  const bytes = await (await fetch(image.src)).arrayBuffer();
  return bytes.byteLength + ":" + [...new Uint8Array(await crypto.subtle.digest("SHA-256", bytes))].join();
}"""


def until(found, what):
    "What `found` returns as soon as it is something; patient, because other work may hold the machine."
    end, last = time.monotonic() + PATIENCE, None
    while time.monotonic() < end:
        try:
            if value := found():
                return value
        except (OSError, sync_api.Error) as e:
            last = e
        time.sleep(.1)
    pytest.fail(f"After {PATIENCE} s: {what}" + (f" ({last})" if last else ""))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "Where JupyterLab runs: a notebook with every widget, and a run of three moments."
    root = tmp_path_factory.mktemp("lab")
    cells = [new_code_cell(source) for source, *_ in WIDGETS.values()]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), root / "widgets.ipynb")
    lesson = nbformat.read(ROOT / f"nbs/{STILL}.ipynb", as_version=4)
    for named in "kernelspec", "language_info":  # without them JupyterLab starts no kernel
        lesson.metadata.pop(named, None)
    nbformat.write(lesson, root / "lesson.ipynb")
    (root / "run/samples").mkdir(parents=True)
    for step in 0, 20, 40:
        Image.new("RGB", (66, 34), (6 * step, 0, 0)).save(root / f"run/samples/step-{step:07d}.png")
    write_history([{"step": s} | {key: s / 50 for key in LINES} for s in (20, 40)], root / "run/history.csv")
    return root


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory):
    "Variables for JupyterLab: settings and signatures of its own, and where its log goes."
    own = tmp_path_factory.mktemp("jupyter")
    settings = {"jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},  # cells below the window are there too
                "jupyter-widgets/jupyterlab-manager/plugin": {"saveState": True}}    # with the notebook
    for name, values in settings.items():
        file = own / f"config/lab/user-settings/@{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(values))
    places = {f"JUPYTER_{name}_DIR": str(own / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    places |= {f"JUPYTERLAB_{name}_DIR": "" for name in ("SETTINGS", "WORKSPACES")}
    env = {k: v for k, v in (os.environ | places).items() if v}
    return env | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(own / "ipython")}, own / "log.txt"


@pytest.fixture(scope="module")
def lab(folder, surroundings):
    "The address of a running JupyterLab."
    env, log = surroundings
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0",
               "--IdentityProvider.token=", "--ServerApp.password=", "--expose-app-in-browser",
               "--LabApp.news_url=None", "--ServerApp.terminals_enabled=False"]
    with open(log, "w") as out:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=out, stderr=subprocess.STDOUT)
    try:
        def address():
            assert process.poll() is None, f"JupyterLab ended: {log.read_text()[-2000:]}"
            found = re.search(r"http://127\.0\.0\.1:(\d+)/", log.read_text())
            return found and urlopen(f"{found[0]}api/status").status == 200 and found[0]
        yield until(address, "JupyterLab does not answer")
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture(scope="module")
def page(lab, tmp_path_factory):
    "The notebook, open, all of its cells run."
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch_persistent_context(
            str(tmp_path_factory.mktemp("browser")), executable_path=CHROMIUM, headless=True, args=ARGUMENTS,
            viewport={"width": 1200, "height": 3000}, timeout=PATIENCE * 1000)
        page = browser.pages[0]
        page.set_default_timeout(PATIENCE * 1000)
        page.goto(f"{lab}lab/tree/widgets.ipynb")
        page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell")
        page.wait_for_function("window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'")
        page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
        yield page
        browser.close()


def picture_of(page, name):
    "The cell of a widget, and the picture in it that a control changes: the last."
    cell = page.locator(".jp-NotebookPanel:visible .jp-CodeCell").nth(list(WIDGETS).index(name))
    picture = cell.locator("img.widget-image").last
    picture.wait_for()
    return cell, picture


@pytest.mark.parametrize("name", WIDGETS)
def test_a_widget_answers(page, name):
    cell, picture = picture_of(page, name)
    for number, do in enumerate(WIDGETS[name][1], 1):
        before = until(lambda: picture.evaluate(BYTES), f"{name}: no picture")
        assert int(before.split(":")[0]) > 100 and picture.evaluate(BYTES) == before, "a picture, and a still one"
        do(cell)
        until(lambda: picture.evaluate(BYTES) != before, f"{name}: after action {number} the picture is as it was")


KERNEL = "() => window.jupyterapp.shell.currentWidget.sessionContext.session !== null"


def opened(page, lab, name):
    "The panel of a notebook, alone in a workspace of its own, nothing run."
    page.goto(f"{lab}lab/workspaces/{name.split('.')[0]}/tree/{name}")
    page.wait_for_function(f"window.jupyterapp?.shell.currentWidget?.context?.path === '{name}'")
    page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell")
    return page.locator(".jp-NotebookPanel:visible")


def test_a_trusted_notebook_shows_its_widgets_before_it_is_run(page, lab, folder, surroundings):
    "As they were when it was saved, the state being stored in the notebook; its new kernel knows nothing of them."
    for name in WIDGETS:
        picture_of(page, name)
    page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    saved = nbformat.read(folder / "widgets.ipynb", as_version=4)
    assert "application/vnd.jupyter.widget-state+json" in saved.metadata.widgets
    nbformat.write(saved, folder / "saved.ipynb")
    subprocess.run([sys.executable, "-m", "jupyter", "trust", "saved.ipynb"], cwd=folder, env=surroundings[0], check=True,
                   capture_output=True)
    panel = opened(page, lab, "saved.ipynb")
    for name in WIDGETS:
        _, picture = picture_of(page, name)
        assert int(picture.evaluate(BYTES).split(":")[0]) > 100, name
    assert "Error displaying widget" not in panel.inner_text()


def test_a_lesson_shows_its_still_without_a_kernel(page, lab):
    panel = opened(page, lab, "lesson.ipynb")
    pictures = panel.locator(".jp-OutputArea-output img")
    pictures.first.wait_for()
    assert all(pictures.nth(i).evaluate("img => img.complete && img.naturalWidth > 100") for i in range(pictures.count()))
    assert not page.evaluate(KERNEL) and not panel.locator(".jupyter-widgets").count()
