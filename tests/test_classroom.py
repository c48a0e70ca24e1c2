"The classroom kit: notebooks without solutions, hidden checks that tell right from wrong, grading by nbgrader."
import csv
import importlib.util
import io
import re
import sys

import nbformat
import pyflakes.api
import pyflakes.reporter
import pytest

from notebooks import ROOT

sys.path.insert(0, str(ROOT / "classroom"))
import grade  # noqa: E402
import hidden  # noqa: E402
import kit  # noqa: E402

PATHS = kit.chosen([])
LESSON = "29_processes"  # the one that is graded here: it runs in seconds


def taken_apart(path):
    return list(kit.exercises(nbformat.read(path, as_version=4)).values())


def shown(path, name):
    "The lines of code to be mended, which the text above the exercise shows."
    notebook = nbformat.read(path, as_version=4)
    i, = [i for i, e in kit.exercises(notebook).items() if e.name == name]
    blocks = re.findall(r"```python\n(.*?)```", kit.DETAILS.sub("", notebook.cells[i - 1].source), re.S)
    return {line.strip() for block in blocks for line in block.splitlines()}


HIDDEN = [(p.stem, e) for p in PATHS for e in taken_apart(p) if f"{p.stem}/{e.name}" in hidden.INPUTS]


def by_id(notebook):
    return {c.metadata.nbgrader.grade_id: c for c in notebook.cells if "nbgrader" in c.metadata}


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_students_get_every_exercise_and_no_solution(path):
    teacher = kit.class_notebook(path, "1")
    student = kit.student_notebook(teacher)
    nbformat.validate(student)
    cells, text = by_id(student), "\n".join(c.source for c in student.cells)
    assert "Solution</summary>" not in text and "HIDDEN TESTS" not in text
    first = next(i for i, c in enumerate(student.cells) if "nbgrader" in c.metadata)
    text = "\n".join(c.source for c in student.cells[first:] if c.metadata.get("nbgrader", {}).get("grade") is not True)
    for e in taken_apart(path):
        own = [line.strip() for line in e.solution.splitlines() if line.strip() and not line.startswith("def ")]
        left = (set(own) - shown(path, e.name)) & {line.strip() for line in text.splitlines()}
        assert len(left) <= len(own) / 4, "lines of the solution are left"
        answer, check = cells[f"answer_{e.name}"], cells[f"check_{e.name}"]
        assert 'raise NotImplementedError("your turn")' in answer.source and "check_" not in answer.source
        assert answer.metadata.get("editable", True) and not answer.metadata.nbgrader.locked
        assert check.source.splitlines()[-2] == f"check_{e.name}({e.name})", "the check is called"
        points = [c.metadata.nbgrader.points for n, c in cells.items() if n in (f"check_{e.name}", f"hidden_{e.name}")]
        assert sum(points) == 2
    for name, cell in cells.items():
        if not name.startswith("answer_"):
            assert cell.metadata.nbgrader.locked and not cell.metadata.editable and not cell.metadata.deletable
            assert cell.metadata.nbgrader.grade and cell.metadata.nbgrader.grade_id in by_id(teacher)
    lesson = nbformat.read(path, as_version=4)
    plain = [c.source for c in lesson.cells if c.cell_type == "code" and "exercise" not in c.metadata.get("tags", [])]
    assert plain == [c.source for c in student.cells if c.cell_type == "code" and "nbgrader" not in c.metadata]


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_a_locked_check_needs_the_answer_alone(path):
    "It brings its imports along, since the student may have changed those of the answer."
    cells = by_id(kit.student_notebook(kit.class_notebook(path, "1")))
    for e in taken_apart(path):
        said = io.StringIO()
        pyflakes.api.check(cells[f"check_{e.name}"].source, "check", pyflakes.reporter.Reporter(said, said))
        undefined = [line for line in said.getvalue().splitlines() if "undefined" in line]
        assert undefined and all(line.endswith(f"'{e.name}'") for line in undefined), undefined


def run_hidden(lesson, e, answer, seed="1"):
    exec(hidden.hidden_cell(lesson, e, seed), {e.name: answer})


@pytest.mark.parametrize("lesson, e", HIDDEN, ids=lambda v: getattr(v, "name", v))
def test_hidden_checks_tell_right_from_wrong(lesson, e):
    there = {}
    exec(e.imports + "\n" + e.answer + "\n" + e.solution, there)
    solution, seen = there[e.name], []

    def noting(*args):
        seen.append(hidden.outcome(solution, args))
        return solution(*args)

    for seed in ("1", 'a "quoted" one'):
        run_hidden(lesson, e, noting, seed)
    assert not hidden.same(seen[:16], seen[16:]), "another seed draws other inputs"
    constant = [lambda *args, one=one: one for one in (None, *seen)]
    stub = {}
    exec(e.imports + "\n" + e.answer, stub)
    for wrong in [*constant, lambda *args: (solution(*args), 0), lambda *args: args[0]]:
        with pytest.raises((AssertionError, TypeError, ValueError, RuntimeError)):
            run_hidden(lesson, e, wrong)
    with pytest.raises(NotImplementedError):
        run_hidden(lesson, e, stub[e.name])


def test_hidden_checks_are_of_exercises_that_exist():
    assert {f"{lesson}/{e.name}" for lesson, e in HIDDEN} == set(hidden.INPUTS)


def test_an_answer_learned_by_heart_passes_the_check_alone():
    "What hidden checks are for."
    e = next(e for lesson, e in HIDDEN if e.name == "moved" and lesson == "28_devices")
    there = {}
    exec(e.answer + "\n\n" + e.check, there)
    there["check_moved"](lambda n, shape: (12_288_000, 49_152_000))
    with pytest.raises(AssertionError, match="expected is"):
        run_hidden("28_devices", e, lambda n, shape: (12_288_000, 49_152_000))


@pytest.mark.parametrize("name, says", [("museum", "no exercises"), ("01_gam", "look like 01_game"), ("../x", "no lesson")])
def test_a_lesson_that_cannot_be_handed_out(name, says, tmp_path, capsys):
    assert kit.main([name, "--folder", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert says in said and len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_made_twice_is_the_same(tmp_path):
    for folder in "ab":
        assert kit.main([LESSON, "--seed", "3", "--folder", str(tmp_path / folder)]) == 0
    a, b = ({p.relative_to(tmp_path / f): p.read_bytes() for p in (tmp_path / f).rglob("*.ipynb")} for f in "ab")
    assert a == b and len(a) == 2


# Grading

RIGHT = {e.name: e.solution for e in taken_apart(kit.lessons()[LESSON])}
ENDLESS = "def worlds(batch_size):\n    while True:\n        pass"
TAMPERED = "def check_weights_of(f):\n    pass\n\ncheck_weights_of(weights_of)"


@pytest.fixture
def release():
    return kit.student_notebook(kit.class_notebook(kit.lessons()[LESSON], "1"))


def handed_in(release, **sources):
    "A copy of the release in which the cells named answer_NAME or check_NAME hold something else."
    copy = nbformat.from_dict(release)
    cells = by_id(copy)
    for name, source in sources.items():
        cells[name].source = source
    return copy


def test_a_hand_in_is_admitted_as_it_is(release):
    mine = handed_in(release, answer_worlds=RIGHT["worlds"])
    mine.cells.insert(3, nbformat.v4.new_code_cell("note = 1"))
    admitted, spoilt = grade.admitted(mine, release)
    assert spoilt == [] and [c.source for c in admitted.cells] == [c.source for c in mine.cells]
    nbformat.validate(admitted)


@pytest.mark.parametrize("how", ["changed", "removed", "made twice", "emptied"])
def test_a_tampered_check_comes_back_and_stops_its_exercise(release, how):
    mine = handed_in(release, answer_weights_of=RIGHT["weights_of"], check_weights_of=TAMPERED if how == "changed" else
                     "" if how == "emptied" else by_id(release)["check_weights_of"].source)
    cell = by_id(mine)["check_weights_of"]
    if how == "removed":
        mine.cells.remove(cell)
    if how == "made twice":
        mine.cells.append(nbformat.from_dict(cell))
    admitted, spoilt = grade.admitted(mine, release)
    assert spoilt == ["weights_of"]
    sources = [c.source for c in admitted.cells]
    for name in ("check_weights_of", "hidden_weights_of"):
        assert sources.count(by_id(release)[name].source) == 1
        there = {}
        exec(sources[sources.index(by_id(release)[name].source) - 1], there)
        with pytest.raises(RuntimeError, match="locked cell"):
            there["weights_of"]([1, 2])
    assert TAMPERED not in sources
    assert not any("def worlds" in s and "RuntimeError" in s for s in sources), "the other one is graded"


def test_cells_are_known_by_their_ids_where_metadata_is_lost(release):
    mine = handed_in(release, answer_worlds=RIGHT["worlds"])
    for cell in mine.cells:
        cell.metadata = {}
    admitted, spoilt = grade.admitted(nbformat.from_dict(mine), release)
    assert spoilt == [] and by_id(admitted).keys() == by_id(release).keys()


def test_another_notebook_is_refused(release):
    other = kit.class_notebook(kit.lessons()["01_game"], "1")
    with pytest.raises(ValueError, match="none of the lesson's exercise cells"):
        grade.admitted(other, release)


def test_nothing_to_grade_is_said_in_a_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    folder = ["--folder", str(tmp_path)]
    assert grade.main(folder) == 2 and "make classroom" in capsys.readouterr().err
    assert kit.main([LESSON, *folder]) == 0
    assert grade.main(folder) == 2 and "Nothing was handed in" in capsys.readouterr().err
    assert grade.main(["01_game", *folder]) == 2 and "was not handed out" in capsys.readouterr().err
    odd = tmp_path / "hand_ins/Ann B"
    odd.mkdir(parents=True)
    (odd / f"{LESSON}.ipynb").write_text("{}")
    assert grade.main(folder) == 2 and "'Ann B'" in capsys.readouterr().err


def test_a_busy_machine_is_no_fault_of_the_student(tmp_path, monkeypatch):
    "nbclient waits four seconds for a cell's output to arrive, and a minute for the kernel: too little under load."
    seen = []
    monkeypatch.setattr(grade.subprocess, "run", lambda command, **kw: seen.extend(command) or grade.subprocess.CompletedProcess([], 0))
    assert grade.nbgrader(tmp_path, 20, "autograde", LESSON) == ""
    assert {"--Execute.timeout=20", "--Execute.iopub_timeout=60", "--Execute.startup_timeout=300"} <= set(seen)


@pytest.mark.skipif(not importlib.util.find_spec("nbgrader"), reason="no nbgrader here; `make grade` installs it")
def test_nbgrader_grades_each_hand_in_as_it_deserves(release, tmp_path, capsys):
    assert kit.main([LESSON, "--seed", "1", "--folder", str(tmp_path)]) == 0
    answers = {f"answer_{name}": source for name, source in RIGHT.items()}
    wrong = "def weights_of(sizes):\n    return [1 for _ in sizes]"
    students = {
        "right": handed_in(release, **answers),
        "half": handed_in(release, **answers | {"answer_worlds": ENDLESS}),
        "tampered": handed_in(release, answer_weights_of=wrong, check_weights_of=TAMPERED),
        "untouched": release,
    }
    for name, notebook in students.items():
        path = tmp_path / "hand_ins" / name / f"{LESSON}.ipynb"
        path.parent.mkdir(parents=True)
        nbformat.write(notebook, path)
    broken = tmp_path / "hand_ins/broken"
    broken.mkdir()
    (broken / f"{LESSON}.ipynb").write_text("my homework")
    capsys.readouterr()
    assert grade.main([LESSON, "--limit", "15", "--folder", str(tmp_path)]) == 0
    with open(tmp_path / "grades.csv", newline="") as f:
        rows = {(row["student"], row["exercise"]): (float(row["points"]), row["remark"]) for row in csv.DictReader(f)}
    assert rows.pop(("broken", "all"))[0] == 0
    assert rows == {
        ("right", "weights_of"): (2, ""),
        ("right", "worlds"): (2, ""),
        ("half", "weights_of"): (2, ""),
        ("half", "worlds"): (0, "stopped after 15 seconds"),
        ("tampered", "weights_of"): (0, grade.SPOILT),
        ("tampered", "worlds"): (0, "not attempted"),
        ("untouched", "weights_of"): (0, "not attempted"),
        ("untouched", "worlds"): (0, "not attempted"),
    }
    assert "right, 29_processes: 4 of 4\n" in capsys.readouterr().out
    for name in students:
        page = (tmp_path / "feedback" / name / LESSON / f"{LESSON}.html").read_text(encoding="utf-8")
        assert f"{LESSON} (Score:" in page and "HIDDEN" not in page and "compare(" not in page


def test_the_teachers_page_lists_every_exercise():
    text = (ROOT / "classroom/README.md").read_text(encoding="utf-8")
    for path in PATHS:
        rows = [line for line in text.splitlines() if line.startswith(f"| {path.stem} |") and "`" in line]
        assert len(rows) == 1, f"the table of hidden checks in classroom/README.md needs one row for {path.stem}"
        _, _, with_hidden, without, _ = rows[0].split("|")
        for e in taken_apart(path):
            column = with_hidden if f"{path.stem}/{e.name}" in hidden.INPUTS else without
            assert f"`{e.name}`" in column, f"classroom/README.md does not have {path.stem}'s {e.name} in its column"
    assert f"for {len(hidden.INPUTS)} exercises" in text
