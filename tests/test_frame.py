"The project's frame: the form of every notebook, links, the one place for the address, nothing of one machine."
import base64
import re
import struct
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

from notebooks import LESSONS, NOTEBOOKS, ROOT, cells, code_cells, tags, text_of, tracked

sys.path.insert(0, str(ROOT / "nbs"))
from _sync import COLAB, install_cell, is_published, place, with_links  # noqa: E402


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
    assert second["source"] == install_cell(is_published()), "the second cell acts on Colab only: make headers"
    text = "\n\n".join(c["source"] for c in rest if c["cell_type"] == "markdown") + "\n## "
    recap = re.search(r"^## Recap$(.*?)^## ", text, re.M | re.S)
    assert recap and re.search(r"^([-*]|\d+\.)\s", recap[1], re.M), "a recap, as a list"
    assert re.search(r"^## Exercises$", text, re.M)
    assert 2 <= sum("exercise" in tags(c) for c in rest) <= 4, "two to four exercises"


@each_notebook
def test_a_notebook_is_stored_as_it_ran(path):
    code = code_cells(path)
    outputs = [o for c in code for o in c["outputs"]]
    assert [c["execution_count"] for c in code] == list(range(1, len(code) + 1)), "run all cells, once, from the top"
    assert not [o for o in outputs if o["output_type"] == "error"], "an error is stored"
    assert not [o for o in outputs if "application/vnd.jupyter.widget-view+json" in o.get("data", {})], "widget state"
    for o in outputs:
        png = base64.b64decode(o.get("data", {}).get("image/png", ""))
        assert len(png) < 60_000, f"a picture of {len(png)} bytes"
        assert not png or struct.unpack(">I", png[16:20])[0] <= 1000, "a picture wider than a page"


@each_notebook
def test_every_picture_has_an_alternative_text(path):
    "A line `#| fig-alt:` above the cell's code, which the site turns into the picture's alternative text."
    for c in code_cells(path):
        if has_picture(c):
            alt = re.search(r"^#\|\s*fig-alt:\s*(.+)$", c["source"], re.M)
            assert alt and len(alt[1].strip()) >= 30, (
                f"{c['id']} makes a picture: say in its first line, `#| fig-alt: …`, what is to be seen in it"
            )


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
    assert f"git+{url}" in install_cell(True) and "git+" not in install_cell(False) and "!" not in install_cell(False)
    if not is_published():
        text = (ROOT / "README.md").read_text(encoding="utf-8")
        assert url not in text and COLAB not in text


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
