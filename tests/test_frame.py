"The project's frame: the form of every notebook, links, the one place for the address, nothing of one machine."
import base64
import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

from notebooks import LESSONS, NOTEBOOKS, ROOT, cells, code_cells, tags, text_of, tracked

sys.path.insert(0, str(ROOT / "nbs"))
from _sync import COLAB, install_cell, is_published, joined, place, with_links  # noqa: E402


def place_of(path):
    "A notebook's path relative to nbs, as its links have it."
    return path.relative_to(ROOT / "nbs").as_posix()


each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
each_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)


@each_lesson
def test_a_lesson_has_its_parts(path):
    _, repo, branch = place()
    first, second, *rest = cells(path)
    assert first["source"].startswith(f"# {path.name[:2]} · "), "the title is `# NN · Title`"
    badge = f"]({COLAB}/{repo}/blob/{branch}/nbs/{place_of(path)})" in first["source"]
    assert badge == is_published(), "the first cell has the Colab badge, once the repository is published: make headers"
    assert second["source"] == install_cell(is_published(), place_of(path)), "the second cell acts on Colab only: make headers"
    text = "\n\n".join(c["source"] for c in rest if c["cell_type"] == "markdown") + "\n## "
    recap = re.search(r"^## Recap$(.*?)^## ", text, re.M | re.S)
    assert recap and re.search(r"^([-*]|\d+\.)\s", recap[1], re.M), "a recap, as a list"
    assert re.search(r"^## Exercises$", text, re.M)
    least = 3 if path.parent.name == "nbs" else 2
    assert least <= sum("exercise" in tags(c) for c in rest) <= 5, "three to five exercises, two under the hood"


@each_notebook
def test_a_notebook_is_stored_as_it_ran(path):
    code = code_cells(path)
    outputs = [o for c in code for o in c["outputs"]]
    assert [c["execution_count"] for c in code] == list(range(1, len(code) + 1)), "run all cells, once, from the top"
    assert not [o for o in outputs if o["output_type"] == "error"], "an error is stored"
    assert not [o for o in outputs if "application/vnd.jupyter.widget-view+json" in o.get("data", {})], "widget state"
    assert not [c["id"] for c in code if joined(c["outputs"]) != c["outputs"]], "torn outputs: make clean-notebooks"
    for o in outputs:
        png = base64.b64decode(o.get("data", {}).get("image/png", ""))
        assert len(png) < 60_000, f"a picture of {len(png)} bytes"
        assert not png or struct.unpack(">I", png[16:20])[0] <= 1000, "a picture wider than a page"


def test_torn_outputs_are_joined():
    def stream(name, text):
        return {"output_type": "stream", "name": name, "text": text}

    picture, again = ({"output_type": "display_data", "data": {}, "metadata": {}} for _ in range(2))
    torn = [stream("stdout", "from 4:"), stream("stdout", " 4 → 8\n"), stream("stderr", "a\n"), stream("stderr", "b\n"),
            picture, again, stream("stdout", "c"), stream("stdout", "d"), stream("stdout", "e\n")]
    whole = [stream("stdout", "from 4: 4 → 8\n"), stream("stderr", "a\nb\n"), picture, again, stream("stdout", "cde\n")]
    assert joined(torn) == whole == joined(whole) and len(torn) == 9 and torn[0]["text"] == "from 4:"


@each_notebook
def test_every_picture_has_an_alternative_text(path):
    "A line `#| fig-alt:` above the cell's code, which the site turns into the picture's alternative text."
    for c in code_cells(path):
        if has_picture(c):
            alt = re.search(r"^#\|\s*fig-alt:\s*(.+)$", c["source"], re.M)
            assert alt and len(alt[1].strip()) >= 30, (
                f"{c['id']} makes a picture: say in its first line, `#| fig-alt: …`, what is to be seen in it"
            )


def test_a_lesson_that_was_opened_and_saved_passes_the_check(tmp_path):
    "JupyterLab adds Python's version; what `make check` runs lets it pass, and still sees what belongs to one machine."
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    command = [Path(sys.executable).parent / "nb-clean", *re.search(r"nb-clean (check .*?) -- ", makefile)[1].split(), "--"]
    notebook = json.loads(LESSONS[0].read_text(encoding="utf-8"))
    notebook["metadata"]["language_info"]["version"] = "3.12.1"
    saved = tmp_path / "saved.ipynb"
    saved.write_text(json.dumps(notebook))
    assert subprocess.run([*command, saved], capture_output=True).returncode == 0
    notebook["cells"][3]["metadata"]["execution"] = {"shell.execute_reply": "2026-11-26T12:00:00Z"}
    saved.write_text(json.dumps(notebook))
    assert subprocess.run([*command, saved], capture_output=True).returncode


def test_make_lab_opens_the_index_from_the_repository_s_root():
    "So that the index's picture, which lies beside nbs, is there."
    lab = re.search(r"jupyter lab (.*)", (ROOT / "Makefile").read_text(encoding="utf-8"))[1]
    assert "--ServerApp.root_dir=." in lab and "default_url=/lab/tree/nbs/index.ipynb" in lab


def has_picture(cell):
    "Whether a stored output holds an image, by itself or inside HTML."
    kinds = [(kind, "".join(text)) for o in cell["outputs"] for kind, text in o.get("data", {}).items()]
    return any(k.startswith("image/") or k == "text/html" and re.search(r"<(img|svg)\b", text) for k, text in kinds)


def test_pictures_are_found_in_outputs():
    def cell(data):
        return {"outputs": [{"output_type": "stream", "text": "<img>"}, {"output_type": "display_data", "data": data}]}

    assert has_picture(cell({"image/png": "iVBORw0K"})) and has_picture(cell({"image/svg+xml": ["<svg>", "</svg>"]}))
    assert has_picture(cell({"text/html": ["<b>a</b>", '<img src="x">']}))
    assert not has_picture(cell({"text/html": "<table></table>", "text/plain": "<img>"}))


WIDE = 47  # characters of a line that fit a phone
AS_PRINTED = {  # cells whose tables are shown as a command prints them on a terminal
    "17s-43": "dcgan bench",
    "18-26": "dcgan shapes",
    "18-27": "dcgan audit",
}


def printed(cell):
    "The text that a reader sees: what was printed, and values without HTML, Markdown or a picture."
    texts = ["".join(o["text"]) for o in cell["outputs"] if o["output_type"] == "stream"]
    values = [o["data"] for o in cell["outputs"] if o["output_type"] in ("execute_result", "display_data")]
    texts += ["".join(data["text/plain"]) for data in values if set(data) == {"text/plain"}]
    return "\n".join(text.rstrip("\n") for text in texts)


def wide_table(text):
    """A line of a printed table that is wider than a phone, or None. Two lines are a table if a gap of two blanks in the
    longer (in either, where they are as long) leads to a word that begins or ends where one of the other does, or if both
    are cut by bars."""
    def words(line):
        return [(m.start(), m.end()) for m in re.finditer(r"\S+", line)]

    def after_gaps(line):
        found = words(line)
        return [b for a, b in zip(found, found[1:]) if b[0] - a[1] > 1]

    lines = text.splitlines()
    for one, two in zip(lines, lines[1:]):
        short, long = sorted((one, two), key=len)
        pairs = [(long, short)] + [(short, long)] * (len(long) - len(short) < 3)
        aligned = any(gap[0] == word[0] or gap[1] == word[1]
                      for line, other in pairs for gap in after_gaps(line) for word in words(other)[1:])
        if (aligned or " | " in one and " | " in two) and len(long) > WIDE:
            return long


@each_notebook
def test_printed_tables_fit_a_phone(path):
    for c in code_cells(path):
        if c["id"] not in AS_PRINTED:
            wide = wide_table(printed(c))
            assert wide is None, (
                f"{c['id']} prints a table of {len(wide)} characters, {WIDE} fit a phone: show it as a `Table` "
                f"of dcgan.shapes, or shorten it: {wide!r}"
            )


def test_a_wide_table_is_seen():
    row, prose = "real   0.80   -0.01   0.81   0.81   0.91   0.93   9.99", "a sentence that is longer than a phone is wide, in one line"
    assert wide_table(f"{row}\n{row}") == wide_table(f"head\n{row}\n{row}\n") == row
    assert wide_table(f"{row[:40]}\n{row[:40]}") is None, "it fits"
    assert wide_table(f"{row}\n{prose}") is None is wide_table(f"{prose}\n{prose}"), "one row, and prose"
    assert wide_table("name | a verdict that is long | a reason that is long\nname | other | reason"), "bars"
    one, two = "real in [0, 1] : right on 100% of real, 100% of fakes", "real in [-1, 1]: right on   0% of real, 100% of fakes"
    assert wide_table(f"{one}\n{two}"), "numbers that end in one column"
    assert {c["id"] for path in NOTEBOOKS for c in code_cells(path) if wide_table(printed(c))} == set(AS_PRINTED)


@each_notebook
def test_links_come_from_settings(path):
    wrong = [c["source"] for c in cells(path) if with_links(c["source"], place_of(path)) != c["source"]]
    assert not wrong, "make headers"


def test_links_can_be_rewritten():
    url, repo, branch = place()
    title, target = "# 01 · A\n*Line.*", f"{COLAB}/{repo}/blob/{branch}/nbs/a.ipynb"
    with_badge = with_links(title, "a.ipynb", published=True)
    assert with_badge.startswith(title) and with_badge.endswith(f"]({target})")
    assert with_links(with_badge.replace(repo, "x/y"), "a.ipynb", published=True) == with_badge, (
        "one badge, its address renewed"
    )
    assert with_links("## A section", "a.ipynb", published=True) == "## A section"
    assert (
        with_links(f"[x]({COLAB}/a/b/blob/c/nbs/d.ipynb)", "a.ipynb", published=True)
        == f"[x]({COLAB}/{repo}/blob/{branch}/nbs/d.ipynb)"
    )
    assert with_links("`pip install git+https://a.b/c`", "a.ipynb", published=True) == f"`pip install git+{url}`"


def test_nothing_leads_to_an_address_that_does_not_exist():
    url = place()[0]
    for source in ("# 01 · A\n*Line.*", install_cell(False), "```sh\npip install . # a clone\n```\ntext"):
        published = with_links(source, "a.ipynb", published=True)
        assert place()[1] in published and source != published
        assert with_links(published, "a.ipynb", published=False) == source, "and back again"
        assert with_links(published, "a.ipynb", published=True) == published
    assert f"git+{url}" in install_cell(True) and "git+" not in install_cell(False)
    if not is_published():
        text = (ROOT / "README.md").read_text(encoding="utf-8")
        assert url not in text and COLAB not in text


ON_COLAB = """
import importlib.util, pathlib, sys, types
from IPython.core.interactiveshell import InteractiveShell
name, cell, installed, works = sys.argv[1:]
if name:
    sys.modules[name] = types.ModuleType(name)
here, real = [installed == "yes"], importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: (here[0] or None) if name == "dcgan" else real(name, *more)
shell = InteractiveShell.instance()

def system(command):
    print(shell.var_expand(command, depth=1))
    here[0] = works == "yes"

shell.system = system
done = [shell.run_cell(source).success for source in (cell, "1")]
print(*done)
"""


@pytest.mark.parametrize("name, published, files, installed, works, expected", [
    ("", False, [], "no", "no", "True True"),
    ("google.colab", False, [], "yes", "no", "True True"),
    ("google.colab", False, ["dcgan-0.1.0-py3-none-any.whl"], "no", "yes", "pip install -q dcgan-0.1.0-py3-none-any.whl\nTrue True"),
    ("google.colab", True, ["dcgan-0.1.0-py3-none-any.whl"], "no", "yes", "pip install -q dcgan-0.1.0-py3-none-any.whl\nTrue True"),
    ("google.colab", True, [], "no", "yes", f"pip install -q git+{place()[0]}\nTrue True"),
    ("google.colab", True, [], "no", "no", f"pip install -q git+{place()[0]}\nThe package dcgan is not here"),
    ("google.colab", False, [], "no", "no", "The package dcgan is not here"),
])
def test_colab_installs_or_stops_in_one_sentence(name, published, files, installed, works, expected, tmp_path):
    for file in files:
        (tmp_path / file).touch()
    done = subprocess.run([sys.executable, "-c", ON_COLAB, name, install_cell(published), installed, works], cwd=tmp_path,
                          env=os.environ | {"IPYTHONDIR": str(tmp_path / "own")}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    out = re.sub(r"Out\[\d+\]: 1\n", "", done.stdout).strip()
    if expected.endswith("here"):
        *before, sentence, ends = out.splitlines()
        assert "\n".join([*before, sentence]).startswith(expected) and "`make wheel`" in sentence and sentence.endswith("again.")
        assert sentence.count(". ") == 0 and ends == "False True", "one sentence, and the cell fails: Run all stops"
    else:
        assert out == expected and not done.stderr


def test_the_lesson_that_needs_no_package_is_not_stopped():
    alone = install_cell(False, "00_first_gan.ipynb")
    assert "raise" not in alone and install_cell(False).startswith(alone)
    code = [c["source"] for c in code_cells(ROOT / "nbs/00_first_gan.ipynb") if "google.colab" not in c["source"]]
    assert not [source for source in code if re.search(r"^\s*(from|import) dcgan\b", source, re.M)]


def test_the_address_stands_once():
    "In settings.ini; in notebooks (and the README made from one) only inside links that `make headers` writes."
    _, repo, _ = place()
    made = {"README.md", "dcgan/_modidx.py"}
    for path in tracked():
        name = path.relative_to(ROOT).as_posix()
        text = text_of(path)
        if text is None or name in made or name == "settings.ini":
            continue
        if path.suffix == ".ipynb":
            text = re.sub(r"git\+https://\S+|https://colab\.research\.google\.com/\S+", "", text)
        assert repo not in text, f"{name} names {repo}: build it from settings.ini"


def markdown_of(path):
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    return "\n\n".join(c["source"] for c in cells(path) if c["cell_type"] == "markdown")


@pytest.mark.parametrize("path", [*NOTEBOOKS, *[p for p in tracked() if p.suffix == ".md"]],
                         ids=lambda p: p.relative_to(ROOT).as_posix())
def test_relative_links_resolve(path):
    text = re.sub(r"```.*?```|`[^`\n]*`|\$[^$\n]*\$", "", markdown_of(path), flags=re.S)
    links = re.findall(r"\]\(([^)\s]+)[^)]*\)|(?:src|href)=\"([^\"]+)\"", text)
    for target in (a or b for a, b in links):
        if not re.match(r"[a-z]+:|#", target):
            assert (path.parent / unquote(target.split("#")[0])).exists(), f"{target} does not exist"


def test_nothing_of_one_machine():
    "No path of a machine and no package registry, in sources or in stored outputs."
    folders = ["work", "root", "tmp", "opt", str(Path.home()).strip("/"), str(ROOT.parent).strip("/")]
    places = "|".join(rf"(?<![\w.~])/{re.escape(f)}/" for f in folders if f)
    hosts = "|".join(
        re.escape(h)
        for h in ("pypi" + ".org", "python" + "hosted", "extra-" + "index-url", "find-" + "links")
    )
    pattern = re.compile(f"{places}|{hosts}")
    for path in tracked():
        hit = pattern.search(text_of(path) or "")
        assert not hit, f"{path.relative_to(ROOT)} names {hit.group()!r}"


def test_the_readme_is_short_and_complete():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    for needed in ("make train", "make test", "Apache", *[p.name for p in LESSONS]):
        assert needed in text, f"README.md does not mention {needed}"


def test_every_picture_says_which_command_made_it():
    text = (ROOT / "images/README.md").read_text(encoding="utf-8")
    for path in ROOT.glob("images/*"):
        assert path.name == "README.md" or f"`{path.name}`" in text, (
            f"images/README.md does not say how {path.name} was made"
        )


def test_version_has_its_entry():
    version = re.search(r"^version\s*=\s*(\S+)", (ROOT / "settings.ini").read_text(encoding="utf-8"), re.M)[1]
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f'"{version}"' in (ROOT / "dcgan/__init__.py").read_text(encoding="utf-8")
