"The museum and the questions: every exhibit can tell broken from mended, every question has its answer, every section link its section."
import ast
import re
import sys
from itertools import takewhile

import pytest

from notebooks import ROOT, cells, python

sys.path.insert(0, str(ROOT / "nbs"))
from _sync import BESIDE, COLAB, install_cell, is_published, with_links  # noqa: E402

MUSEUM, FAQ = ROOT / "nbs/museum.ipynb", ROOT / "nbs/faq.ipynb"
PARTS = ["Broken", "Measured", "Mended"]
SWAPPED = {"measure(broken)": "measure(mended)", "measure(mended)": "measure(broken)"}


def sections(path, level):
    "Title → the cells under it, for the numbered headings of a level."
    found = {}
    for c in cells(path):
        for block in re.split(r"^(?=#{2,3} )", c["source"], flags=re.M) if c["cell_type"] == "markdown" else []:
            head = re.match(r"(#+) (.+)", block)
            if head:
                title = head[2] if len(head[1]) == level and re.match(r"\d+\. ", head[2]) else None
                found.setdefault(title, [])
            if found:
                found[title].append(("text", block))
        if c["cell_type"] == "code" and found:
            found[title].append(("code", c["source"]))
    found.pop(None, None)
    return found


def part(source):
    "Broken, Measured or Mended, as the cell's comment says."
    return next((line[2:] for line in source.splitlines() if line[2:] in PARTS and line.startswith("# ")), None)


EXHIBITS = sections(MUSEUM, 2)
QUESTIONS = sections(FAQ, 3)


def test_both_open_in_colab():
    assert set(BESIDE) == {MUSEUM.name, FAQ.name, "capstone.ipynb"}
    for path in MUSEUM, FAQ, ROOT / "nbs/capstone.ipynb":
        first, second, *_ = cells(path)
        assert first["source"].startswith("# ") and second["source"] == install_cell(is_published())
        badges = [COLAB in with_links(text, path.name, published=True) for text in (first["source"], "## A section")]
        assert badges == [True, False]


def test_there_are_enough_in_order():
    for titles, least in (EXHIBITS, 14), (QUESTIONS, 28):
        assert [int(t.split(".")[0]) for t in titles] == list(range(1, len(titles) + 1)) and len(titles) >= least
    assert len(QUESTIONS) == 28


@pytest.mark.parametrize("title", EXHIBITS)
def test_an_exhibit_has_its_parts(title):
    code = [source for kind, source in EXHIBITS[title] if kind == "code"]
    text = "".join(source for kind, source in EXHIBITS[title] if kind == "text")
    assert [part(source) for source in code] == PARTS
    assert "**What is wrong?**" in text.split("<details>")[0], "a riddle first"
    answer = re.search(r"<details><summary>Answer</summary>(.*)</details>", text, re.S)
    assert answer and "https://github.com/" in answer[1], "an answer, folded away, that says where the bug was seen"
    assert ".ipynb" in answer[1], "and which lesson it belongs to"
    for source, name in (code[1], "broken"), (code[2], "mended"):
        assert f"measure({name})" in source and re.search(r"^\s*assert ", source, re.M)


def definitions(source):
    "Functions and plain values of a cell, without what it measures, prints or asserts."
    body = [n for n in ast.parse(source).body if isinstance(n, (ast.FunctionDef, ast.Assign))]
    return "\n".join(ast.unparse(n) for n in body if isinstance(n, ast.FunctionDef) or "measure(" not in ast.unparse(n))


def test_each_measurement_tells_broken_from_mended():
    "Measured with the mended thing, and mended with the broken one, must fail."
    import matplotlib.pyplot as plt
    first = next(iter(EXHIBITS.values()))[1][1]
    space = {"__name__": "museum"}
    for c in takewhile(lambda c: c["source"] != first, cells(MUSEUM)):
        if c["cell_type"] == "code":
            exec(python(c), space)
    for title, content in EXHIBITS.items():
        shown, *measured = [source for kind, source in content if kind == "code"]
        for source in (shown, *map(definitions, measured)):
            exec(compile(source, title, "exec"), space)
        for source in measured:
            with pytest.raises(AssertionError):
                exec(
                    compile(
                        re.sub(r"measure\((broken|mended)\)", lambda m: SWAPPED[m[0]], source), title, "exec"
                    ),
                    space,
                )
        plt.close("all")


@pytest.mark.parametrize("title", QUESTIONS)
def test_a_question_has_its_answer(title):
    text = "".join(source for kind, source in QUESTIONS[title] if kind == "text")
    answer, asked = text.split("*Asked in*")
    assert "https://github.com/" in asked or "the threads of question" in asked, "the thread in which it was asked"
    sentences = len(re.findall(r"[.?!](?=\s)", answer))
    assert 2 <= sentences <= 8, f"{sentences} sentences"
    assert re.search(r"\]\((under_the_hood/)?\d\d_\w+\.ipynb|museum\.ipynb#", answer), (
        "a lesson, or an exhibit of the museum"
    )


def test_many_answers_run():
    assert sum(any(kind == "code" for kind, _ in content) for content in QUESTIONS.values()) >= 10


def test_the_contents_list_every_question():
    listed = re.findall(r"^- \[(.+)\]\(#", next(c["source"] for c in cells(FAQ) if c["id"] == "faq-02"), re.M)
    assert listed == list(QUESTIONS)


def anchors(path):
    "The addresses of a notebook's headings: their text, with dashes for blanks."
    text = "\n".join(c["source"] for c in cells(path) if c["cell_type"] == "markdown")
    return {re.sub(r"[`$*]", "", head).strip().replace(" ", "-") for head in re.findall(r"^#+ (.+)$", text, re.M)}


@pytest.mark.parametrize("path", [MUSEUM, FAQ], ids=lambda p: p.stem)
def test_links_to_sections_resolve(path):
    "Whether the notebook exists is tested in test_frame."
    text = "\n".join(c["source"] for c in cells(path) if c["cell_type"] == "markdown")
    links = re.findall(r"\]\(([\w/]*(?:\.ipynb)?)#([^)\s]+)\)", text)
    assert len(links) > 20
    for name, section in links:
        target = path.parent / name if name else path
        assert section.isascii(), f"viewers write the address {section} in different ways"
        assert not target.exists() or section in anchors(target), f"{name}#{section} leads to no section"
