"What the index and the pages of the site say about lessons: tables, minutes, questions, the map."
import re
import sys
import xml.etree.ElementTree as ET

import nbformat
import pytest

from notebooks import HOOD, LESSONS, NOTEBOOKS, ROOT, cells

sys.path[:0] = [str(ROOT / "nbs"), str(ROOT / "site")]
import lessonmap  # noqa: E402
import pages  # noqa: E402
import reading  # noqa: E402
from _sync import index  # noqa: E402

BY_NAME = {path.stem: path for path in NOTEBOOKS}


@pytest.fixture(autouse=True)
def fresh():
    yield
    reading.measured.cache_clear()
    reading.entries.cache_clear()


def test_the_index_is_in_step():
    assert index(check=True) == [], "make export"


def test_every_notebook_is_in_the_index_with_what_it_shows_and_its_minutes():
    text = "".join(c["source"] for c in cells(BY_NAME["index"]))
    for path in NOTEBOOKS:
        if path.stem != "index":
            rows = [line for line in text.splitlines() if f"]({path.relative_to(ROOT / 'nbs').as_posix()}) |" in line]
            assert len(rows) == 1 and re.search(r"\| \d+\smin \| (\d+\ss|–) \|", rows[0]), path.name
            assert reading.row(path).strip("| ").split(" | ")[1] in rows[0]


def test_entries_name_notebooks_and_every_lesson_has_questions():
    assert set(reading.entries()) <= set(BY_NAME)
    assert any(HOOD in path.parts for path in LESSONS)
    for path in LESSONS:
        entry = reading.entries().get(path.stem)
        assert entry and len(entry.questions) == 3 and entry.able, f"{path.stem}: give it an entry in site/questions.md"
    asked = [q for entry in reading.entries().values() for q, _ in entry.questions]
    assert len(asked) == len(set(asked)) and all(q.endswith(("?", ".")) for q in asked)


@pytest.mark.parametrize("text, words", [
    ("## a\n\nAble: do.\n", "a needs a line `Shows"), ("## a\n\nShows: x\n\n**Q?**\nA.\n", "three of them")])
def test_a_wrong_entry_is_named(tmp_path, monkeypatch, text, words):
    (tmp_path / "questions.md").write_text(text)
    monkeypatch.setattr(reading, "HERE", tmp_path)
    reading.entries.cache_clear()
    with pytest.raises(ValueError, match=words):
        reading.entries()


def test_minutes_count_words_and_code(tmp_path):
    path, v4 = tmp_path / "a.ipynb", nbformat.v4
    exercise = v4.new_code_cell("x\n" * 900, metadata={"tags": ["exercise"]})
    solution = v4.new_markdown_cell("<details>" + " word" * 9000)
    nbformat.write(v4.new_notebook(cells=[v4.new_markdown_cell("word " * 2000), v4.new_code_cell("x = 1\n\n" * 100), exercise, solution]), path)
    assert reading.minutes_to_read(path) == 15, "2,000 words are ten minutes, 100 lines five"
    nbformat.write(v4.new_notebook(cells=[v4.new_markdown_cell("few")]), path)
    assert reading.minutes_to_read(path) == 5


def test_a_page_has_its_frame(monkeypatch):
    path = BY_NAME["01_game"]
    monkeypatch.setattr(reading, "measured", lambda: {"01_game": {"seconds": "7.4"}})
    before = nbformat.read(path, as_version=4)
    notebook = pages.framed(nbformat.read(path, as_version=4), path)
    assert "7\N{NO-BREAK SPACE}s to run on one processor core. **Afterwards you can** " in notebook.cells[0].source
    *_, questions, last = notebook.cells
    assert last.source.startswith("Next:") and questions.source.startswith("## Three questions\n")
    assert questions.source.count("<details><summary>") == questions.source.count("</details>") == 3
    assert len(notebook.cells) == len(before.cells) + 1
    assert reading.times(BY_NAME["02_pictures"])[1] == "–", "what was not measured gets no number"


def test_the_museum_has_questions_and_the_faq_has_none():
    assert reading.after(BY_NAME["museum"]) and not reading.after(BY_NAME["faq"])


def test_the_map_is_a_picture_of_all_lessons():
    svg = ET.fromstring(lessonmap.picture())
    texts = [t.text for t in svg.iter("{http://www.w3.org/2000/svg}text")]
    for path in LESSONS:
        assert pages.title(path)[0] in texts
    assert svg.get("width") and svg.get("height")
