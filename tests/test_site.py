"The site, as far as it can be tested without building it: which pages, in which order, and what they show of a notebook."
import re
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from notebooks import HOOD, LESSONS, MODULES, NOTEBOOKS, ROOT, cells, module_name, written_by

sys.path[:0] = [str(ROOT / "nbs"), str(ROOT / "site")]
import docments  # noqa: E402
import lessonmap  # noqa: E402
import pages  # noqa: E402
import reading  # noqa: E402
import terms  # noqa: E402
from _sync import install_cell, settings  # noqa: E402

from dcgan.evaluation.reports import trained  # noqa: E402
from dcgan.weights import shipped  # noqa: E402


@pytest.fixture(scope="module")
def made():
    return pages.pages()


def test_every_notebook_is_in_the_tree_once_and_in_order(made):
    tree = re.findall(r"```\{toctree\}\n(.*?)```", made["index.md"], re.S)
    names = [line for block in tree for line in block.splitlines() if line and not line.startswith(":")]
    main = [pages.docname(p) for p in LESSONS if HOOD not in p.parts]
    hood = [pages.docname(p) for p in LESSONS if HOOD in p.parts]
    assert [n for n in names if n in main] == main and [n for n in names if n in hood] == hood
    beside = {pages.docname(p) for p in NOTEBOOKS if p.stem != "index"} - {*main, *hood}
    assert [n for n in names if n.startswith("nbs/")] == [*main, *sorted(beside, reverse=True), *hood]
    assert len(names) == len(set(names))
    for name in [re.sub(r".*<(.*)>", r"\1", n) for n in names]:
        assert {f"{name}{end}" for end in (".md", ".rst", ".ipynb")} & made.keys(), f"the tree names {name}, which is not there"


def test_the_home_page_lists_every_lesson(made):
    for path in LESSONS:
        title, line = pages.title(path)
        assert f"| [{title}]({pages.docname(path)}.ipynb) | {line} |" in made["index.md"] and line


def test_every_module_of_a_lesson_has_a_page(made):
    assert set(pages.modules()) == {module_name(p) for p in MODULES if written_by()[module_name(p)]}
    assert {f"api/{m}.rst" for m in pages.modules()} <= made.keys()


@pytest.mark.parametrize("source", [
    install_cell(True), install_cell(False), "#| default_exp steps", "#| export\nimport torch\n\nfrom dcgan.steps import d_step",
    "import torch\nfrom torch import nn\n\nREAL, FAKE = 'a', 'b'", "import matplotlib.pyplot as plt\n\nplt.rcParams['figure.dpi'] = 90"])
def test_set_up_is_folded(source):
    assert pages.is_setup(new_code_cell(source))


@pytest.mark.parametrize("cell", [
    new_markdown_cell("import this"), new_code_cell("x = 1"), new_code_cell("import torch\n\ndef f():\n    return 1"),
    new_code_cell("import torch\nx = 1\ny = 2\nprint(x)"), new_code_cell("# only a remark"),
    new_code_cell("import torch", outputs=[new_output("stream", text="hello")]),
    new_code_cell("import torch", metadata={"tags": ["exercise"]})])
def test_what_teaches_is_not_folded(cell):
    assert not pages.is_setup(cell)


def test_neighbours_become_one_fold():
    cells = [new_markdown_cell("# A"), *map(new_code_cell, ["import a", "#| default_exp a", "import b", "a.b()", "import c"])]
    shown = pages.folded(cells)
    assert [c.source for c in shown] == ["# A", "import a\n\n#| default_exp a\n\nimport b", "a.b()", "import c"]
    assert ["hide-input" in c.metadata.get("tags", []) for c in shown] == [False, True, False, True]
    assert shown[1].metadata.mystnb["code_prompt_show"] == "Show set-up"


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_a_lesson_keeps_all_but_its_set_up(path, made):
    shown = nbformat.reads(made[f"{pages.docname(path)}.ipynb"], as_version=4).cells
    hidden = [c for c in shown if "hide-input" in c.metadata.get("tags", [])]
    assert hidden and hidden[0] is shown[1], "the first fold stands below the title"
    text = "".join(c.source for c in shown)
    for cell in cells(path):
        source = pages.FIG_ALT.sub("", cell["source"])
        assert cell["cell_type"] == "markdown" or source in text
    before = [o for c in cells(path) for o in c.get("outputs", [])]
    assert sum(len(c.get("outputs", [])) for c in shown) == len(before)


def test_alternative_text():
    html = new_output("display_data", data={"text/html": '<img src="data:x"><img alt="mine" src="data:y">'})
    cell = pages.with_alt(new_code_cell("#| fig-alt: A blue line.\nplot()", outputs=[html]))
    assert cell.source == "plot()" and cell.metadata.mystnb["image"]["alt"] == "A blue line."
    assert cell.outputs[0].data["text/html"] == '<img alt="A blue line." src="data:x"><img alt="mine" src="data:y">'
    assert pages.with_alt(new_code_cell("plot()")).metadata.mystnb["image"]["alt"] == pages.ANY_ALT


def test_links():
    lesson = ROOT / "nbs/07_steps.ipynb"
    kept = "[01](01_game.ipynb), [20](under_the_hood/20_values.ipynb#A-b), [x](#here), [p](https://a.b/c.py), `[c](d.py)`"
    assert pages.with_site_links(kept, lesson) == kept
    gone = pages.with_site_links("see [the race](../bench/train.py).", lesson)
    assert gone == "see the race." if not settings().getboolean("published") else "/bench/train.py)" in gone
    badge = "# 07 · Steps\n\n[![Open in Colab](https://a.b/badge.svg)](https://a.b/07.ipynb)"
    assert pages.with_site_links(badge, lesson) == "# 07 · Steps\n\n[Open in Colab](https://a.b/07.ipynb)"


def test_a_page_is_written_only_when_it_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "pages", lambda: {"index.md": "a", "api/x.rst": "b"})
    pages.write(tmp_path)
    before = (tmp_path / "index.md").stat().st_mtime_ns
    (tmp_path / "old.md").write_text("from yesterday")
    pages.write(tmp_path)
    assert (tmp_path / "index.md").stat().st_mtime_ns == before and not (tmp_path / "old.md").exists()


def test_the_map():
    graph = lessonmap.direct({"a": set(), "b": {"a"}, "c": {"a", "b"}, "d": {"a"}})
    assert graph == {"a": set(), "b": {"a"}, "c": {"b"}, "d": {"a"}}, "c reaches a through b"
    picture = lessonmap.drawn(LESSONS)
    for path in LESSONS:
        assert f'<a href="nbs/{path.relative_to(ROOT / "nbs").with_suffix("")}.html"' in picture
    found = lessonmap.needs(lessonmap.lessons(LESSONS))
    by_name = {p.name: {q.name for q in before} for p, before in found.items()}
    assert "01_game.ipynb" in by_name["07_steps.ipynb"] and not by_name["00_first_gan.ipynb"]


def test_comments_become_descriptions():
    from dcgan.recipes import Recipe
    from dcgan.shapes import Row
    from dcgan.steps import Precision, d_step
    assert docments.comments(d_step)["z"] == "noise (b, z_dim) for the fakes" and "return" in docments.comments(d_step)
    assert docments.comments(Row)["norm"] == "BatchNorm over the channels that come out"
    assert "one that is there" in docments.comments(Precision).values() and "self" not in docments.comments(Precision)
    assert len(docments.comments(Recipe)) > 20, "the fields of its parents too"
    assert docments.comments(3) == {}
    lines = ["Two* of `a_b`."]
    docments.describe(None, "class", "Row", Row, None, lines)
    assert lines[:2] == ["Two\\* of ``a_b``.", ""] and ":param norm: BatchNorm over the channels that come out" in lines
    assert any(line.startswith(":param kind: conv, conv\\_t (transposed)") for line in lines)


def test_the_glossary_is_in_order():
    text = (ROOT / "site/glossary.md").read_text(encoding="utf-8")
    terms = re.findall(r"^(\S.*)\n  \S", text.split("```{glossary}\n")[1], re.M)
    assert len(terms) > 20 and [t.lower() for t in terms] == sorted(t.lower() for t in terms)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert (ROOT / "site" / target).exists()


def test_a_word_of_the_glossary_is_a_link_where_it_first_stands():
    left = {"generator", "batch", "mode collapse", "logit", "conditional GAN"}
    text = "## A generator\n\n`batch` and $batch$, [a batch](x.md): two Batches of a generator.\n\n| a logit |\n\nOne batch."
    linked = terms.linked(text, left)
    assert linked.replace("{term}`Batches <batch>`", "Batches").replace("{term}`generator <generator>`", "generator") == text
    assert linked.count("{term}") == 2 and left == {"mode collapse", "logit", "conditional GAN"}
    assert terms.linked("A conditional GAN.", left) == "A {term}`conditional GAN <conditional GAN>`."
    apart = "a random generator, a generator-like logits-to-go, <details>\nthe logit\n</details>"
    assert terms.linked(apart, {"logit", "generator"}) == apart


def test_words_that_mean_something_else_are_no_links():
    assert "density" not in terms.wanted("01_game") and "density" in terms.wanted("15_latent") & terms.wanted("museum")
    assert "generator" in terms.wanted("01_game") and "generator" not in terms.wanted("21_drawn"), "which has random ones"
    assert terms.LATER | {word for _, word in terms.OTHERWISE} <= set(terms.terms())


def test_every_word_of_the_glossary_is_linked_somewhere(made):
    text = "\n".join(made[f"{pages.docname(p)}.ipynb"] for p in NOTEBOOKS if p.stem != "index")
    linked = set(re.findall(r"\{term\}`[^`<]+ <([^>]+)>`", text))
    assert linked == set(terms.terms())


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.stem != "index"], ids=lambda p: p.stem)
def test_the_questions_stand_before_the_link_to_the_next_lesson(path, made):
    shown = [c.source for c in nbformat.reads(made[f"{pages.docname(path)}.ipynb"], as_version=4).cells]
    links = [i for i, text in enumerate(shown) if re.search(r"^Next: \[", text, re.M)]
    assert links in ([], [len(shown) - 1]) and all(shown[i].startswith("Next: ") for i in links)
    if reading.entries()[path.stem].questions:
        assert shown[-2 if links else -1].startswith("## Three questions")


def test_the_teachers_page_is_on_the_site(made):
    assert made["classroom/README.md"] == (ROOT / "classroom/README.md").read_text(encoding="utf-8")
    assert "Teaching <classroom/README>" in made["index.md"] and "](classroom/README.md)" in made["index.md"]
    assert "](../classroom/README.md)" in made["nbs/index.ipynb"]


@pytest.mark.parametrize("room", [[p for p in LESSONS if (HOOD in p.parts) is hood] for hood in (False, True)], ids=["main", HOOD])
def test_next_leads_to_the_next_lesson(room):
    for path, after in zip(room, room[1:]):
        last = "\n".join(c["source"] for c in cells(path)[-3:] if c["cell_type"] == "markdown")
        found = re.findall(r"^Next: \[(.+?)\]\((.+?)\)", last, re.M)
        assert found == [(pages.title(after)[0], after.name)], f"{path.name} ends in a link to {after.name}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_links_into_a_lesson_find_their_heading(path):
    text = "\n".join(c["source"] for c in cells(path) if c["cell_type"] == "markdown")
    for target, anchor in re.findall(r"\]\(([^)\s#]*\.ipynb)?#([^)\s]+)\)", text):
        there = cells((path.parent / target).resolve() if target else path)
        heads = re.findall(r"^#+ (.+)$", "\n".join(c["source"] for c in there if c["cell_type"] == "markdown"), re.M)
        assert anchor in [pages.jupyter_slug(re.sub("[`*]", "", head)) for head in heads], f"{target} has no heading for #{anchor}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_equations_are_set_on_github_too(path):
    assert not [c["source"] for c in cells(path) if r"\operatorname" in c["source"]], r"GitHub refuses it: write \mathrm"


def test_the_playground_is_whole():
    folder = ROOT / "playground"
    page, script = ((folder / name).read_text(encoding="utf-8") for name in ("index.html", "main.js"))
    ids = re.findall(r'\bid="([\w-]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'\bat\("([\w-]+)"\)', script)) <= set(ids), "what the script looks for is in the page"
    build = (folder / "build.py").read_text(encoding="utf-8")
    names = re.findall(r'^    Shown\("([\w-]+)"', build, re.M)
    assert len(set(names) & set(shipped())) >= 3 and len(names) == len(set(names))
    for file in folder.glob("*.*"):
        for name in re.findall(r'(?:from|src=|href=)\s*"(?:\./)?([\w-]+\.(?:js|css))"', file.read_text(encoding="utf-8")):
            assert (folder / name).exists() and f'"{name}"' in build, f"{name} is copied"
        assert "://" not in file.read_text(encoding="utf-8"), f"{file.name} needs no other host"


def test_the_playground_says_how_many_images_each_generator_saw():
    build = (ROOT / "playground/build.py").read_text(encoding="utf-8")
    for name, number in re.findall(r'Shown\("([\w-]+)", .*trained on ([\d,]+)', build):
        if name in shipped():
            assert trained(name)[1].images in (int(number.replace(",", "")), None), name


def test_citation_and_classifiers_agree_with_the_settings():
    s = settings()
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {s['version']}\n" in citation and f"name: {s['author']}\n" in citation
    versions = re.findall(r"Python :: (3\.\d+)", (ROOT / "setup.py").read_text(encoding="utf-8"))
    assert versions[0] == s["min_python"]


def test_a_notebook_may_have_no_code():
    notebook = pages.prepared(new_notebook(cells=[new_markdown_cell("# A")]), ROOT / "nbs/a.ipynb")
    assert notebook.cells[0].source == "# A"
