"""Grade what the students of a class handed in, with nbgrader.

    python classroom/grade.py [01_game …] [--limit 60] [--folder class]

Hand-ins lie in class/hand_ins/STUDENT/01_game.ipynb. Points go to class/grades.csv, a page for each to class/feedback.
"""
import argparse
import csv
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
from kit import HIDDEN

SPOILT = "a locked cell of this exercise was changed or removed"
COLUMNS = "student", "lesson", "exercise", "points", "of", "remark"
STUDENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def grade_id(cell):
    "The name that nbgrader knows the cell by, from its metadata or else from its id; None for other cells."
    by_id = re.fullmatch(r"(answer|check|hidden)-(.+)", cell.get("id", ""))
    return cell.metadata.get("nbgrader", {}).get("grade_id") or by_id and f"{by_id[1]}_{by_id[2].replace('-', '_')}"


def read(path):
    "A notebook. ValueError if it is none."
    try:
        return nbformat.read(path, as_version=4)
    except Exception as e:
        raise ValueError(f"this file is no notebook that can be read ({type(e).__name__})") from None


def admitted(hand_in, release):
    """The hand-in with every locked cell as it was handed out, and the exercises where one had been changed or removed.

    There a cell before the check replaces the answer by a function that says so.
    ValueError if no cell is the release's."""
    locked = {grade_id(c): c for c in release.cells if grade_id(c) and c.metadata.nbgrader.locked}
    given, answers = {}, {grade_id(c): c for c in release.cells if grade_id(c) and not c.metadata.nbgrader.locked}
    for cell in hand_in.cells:
        given.setdefault(grade_id(cell), []).append(cell.source.strip())
    if not given.keys() & {*locked, *answers}:
        raise ValueError("this notebook has none of the lesson's exercise cells")
    spoilt = {n.partition("_")[2] for n, c in locked.items() if given.get(n) != [c.source.strip()]}

    def before_check(name):
        exercise = name.partition("_")[2]
        stop = f"def {exercise}(*args, **kwargs):\n    raise RuntimeError({SPOILT!r})"
        return [nbformat.v4.new_code_cell(stop)] * (exercise in spoilt)

    cells, missing = [], dict(locked)
    for cell in hand_in.cells:
        name = grade_id(cell)
        if name in missing:
            cells += [*before_check(name), missing.pop(name)]
        elif name not in locked:
            metadata = answers.pop(name).metadata if name in answers else {}
            cells.append(nbformat.from_dict({**cell, "metadata": metadata}))
    for name, cell in missing.items():
        cells += [*before_check(name), cell]
    cells = [nbformat.from_dict({**c, "id": f"cell-{i}"}) for i, c in enumerate(cells)]
    return nbformat.v4.new_notebook(cells=cells, metadata=release.metadata), sorted(spoilt)


def remark(cell, limit):
    "Why a check that ran gave no points, in a few words; empty if it gave them."
    errors = [o for o in cell.get("outputs", []) if o.output_type == "error"]
    if not errors:
        return ""
    names = {o.ename for o in errors}
    if names & {"CellTimeoutError", "KeyboardInterrupt"}:
        return f"stopped after {limit} seconds"
    if "NotImplementedError" in names:
        return "not attempted"
    text = " ".join(errors[0].evalue.split())[:200]
    return text if text == SPOILT or errors[0].ename == "AssertionError" else f"{errors[0].ename}: {text}"


def nbgrader(folder, limit, *words, seconds=None):
    "Run one of nbgrader's commands in the class's folder; what went wrong, if anything. It writes to nbgrader.log."
    places = {"source": "teacher", "release": "nbgrader/release", "submitted": "nbgrader/submitted"}
    places |= {"autograded": "nbgrader/graded", "feedback": "feedback"}
    flags = [f"--CourseDirectory.{k}_directory={v}" for k, v in places.items()]
    flags.append(f"--CourseDirectory.root={folder}")
    flags.append(f"--CourseDirectory.db_url=sqlite:///{folder / 'nbgrader/gradebook.db'}")
    here = Path(sys.executable).parent  # nbgrader looks for alembic on PATH
    env = os.environ | {"PATH": f"{here}{os.pathsep}{os.environ.get('PATH', '')}", "MPLBACKEND": "agg"}
    with open(folder / "nbgrader.log", "a", encoding="utf-8") as log:
        times = [f"--Execute.timeout={limit}", f"--Execute.iopub_timeout={max(limit, 60)}", "--Execute.startup_timeout=300"]
        command = [here / "nbgrader", *words, "--force", *times, *flags]  # a busy machine is no student's fault
        try:
            done = subprocess.run(command, cwd=folder, env=env, stdout=log, stderr=log, timeout=seconds)
        except subprocess.TimeoutExpired:
            return f"the notebook was stopped after {seconds} seconds"
    return "the notebook ended its own kernel or could not be run, see nbgrader.log" if done.returncode else ""


def without_hidden_checks(path):
    "Rewrite a graded notebook so that its feedback shows what a hidden check said, but not the check."
    notebook = read(path)
    for cell in notebook.cells:
        if (grade_id(cell) or "").startswith("hidden_"):
            cell.source = HIDDEN.sub("", cell.source).rstrip()
            for o in cell.outputs:
                if o.output_type == "error":
                    o.traceback = [f"{o.ename}: {o.evalue}"]
    path.unlink()  # nbgrader makes it read-only
    nbformat.write(notebook, path)


def points(folder, lesson, student, limit):
    "A row for each exercise of a graded hand-in."
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{folder / 'nbgrader/gradebook.db'}") as book:
        grades = book.find_submission_notebook(lesson, lesson, student).grades
        scores = {g.name: (g.auto_score or 0, g.max_score) for g in grades}
    ran = {grade_id(c): c for c in read(folder / "nbgrader/graded" / student / lesson / f"{lesson}.ipynb").cells}
    for name in [n.removeprefix("answer_") for n in ran if n and n.startswith("answer_")]:
        kinds = [k for k in (f"check_{name}", f"hidden_{name}") if k in scores]
        why = [remark(ran[k], limit) for k in kinds]
        if len(why) == 2 and not why[0] and why[1]:
            why = [f"right for the lesson's inputs only: {why[1]}"]
        yield name, *(sum(scores[k][i] for k in kinds) for i in (0, 1)), next(filter(None, why), "")


def grade(folder, lesson, student, limit):
    "Admit one hand-in and run it; a row for each exercise, or for all of them if it can't be graded."
    release = read(folder / "students" / lesson / f"{lesson}.ipynb")
    total = 2 * sum((grade_id(c) or "").startswith("answer_") for c in release.cells)
    path = folder / "nbgrader/submitted" / student / lesson / f"{lesson}.ipynb"
    try:
        notebook, _ = admitted(read(folder / "hand_ins" / student / f"{lesson}.ipynb"), release)
    except ValueError as e:
        return [(student, lesson, "all", 0, total, str(e))]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    if failed := nbgrader(folder, limit, "autograde", lesson, f"--student={student}", seconds=10 * limit):
        return [(student, lesson, "all", 0, total, failed)]
    without_hidden_checks(folder / "nbgrader/graded" / student / lesson / f"{lesson}.ipynb")
    return [(student, lesson, *row) for row in points(folder, lesson, student, limit)]


def summary(student, lesson, rows):
    "One line for a hand-in."
    why = "; ".join(f"{name}: {text}" for *_, name, _, _, text in rows if text)
    scored, total = (sum(row[i] for row in rows) for i in (3, 4))
    return f"{student}, {lesson}: {scored:g} of {total:g}" + (f". {why}" if why else "")


def hand_ins(folder, lessons):
    "(lesson, student) for each hand-in. ValueError, in a sentence, where there is nothing to grade."
    made = sorted(p.name for p in (folder / "teacher").glob("*") if (folder / "students" / p.name).is_dir())
    if not made:
        raise ValueError(f"There is no class in {folder}: make one with `make classroom N=01_game`.")
    if unknown := [n for n in lessons if n not in made]:
        raise ValueError(f"{unknown[0]} was not handed out from {folder}; these were: {', '.join(made)}.")
    found = sorted(p for p in (folder / "hand_ins").glob("*/*.ipynb") if p.stem in (lessons or made))
    if not found:
        raise ValueError(f"Nothing was handed in: put each notebook, its name unchanged, into {folder}/hand_ins/STUDENT/.")
    if odd := [p.parent.name for p in found if not STUDENT.fullmatch(p.parent.name)]:
        raise ValueError(f"A student's folder is named with letters, digits, dots, dashes and underscores, not {odd[0]!r}.")
    return sorted((p.stem, p.parent.name) for p in found)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lessons", nargs="*", help="names such as 01_game; all that were handed in if none is given")
    parser.add_argument("--limit", type=int, default=60, help="seconds for one cell; a notebook gets ten times as many")
    parser.add_argument("--folder", type=Path, default=Path("class"), help="the class's folder")
    args = parser.parse_args(argv)
    folder, rows = args.folder.resolve(), []
    try:
        if not importlib.util.find_spec("nbgrader"):
            raise ValueError("nbgrader is not installed: type `make grade`, or pip install -e '.[classroom]'.")
        found = hand_ins(folder, [n.removesuffix(".ipynb") for n in args.lessons])
        (folder / "nbgrader").mkdir(exist_ok=True)
        for lesson in dict.fromkeys(lesson for lesson, _ in found):
            if nbgrader(folder, args.limit, "generate_assignment", lesson):
                raise ValueError(f"nbgrader could not read {folder}/teacher/{lesson}; see {folder}/nbgrader.log.")
    except ValueError as e:
        print(e, file=sys.stderr)
        return 2
    for lesson, student in found:
        mine = grade(folder, lesson, student, args.limit)
        rows += mine
        print(summary(student, lesson, mine), flush=True)
    for lesson in dict.fromkeys(lesson for lesson, _ in found):
        nbgrader(folder, args.limit, "generate_feedback", lesson)
    with open(folder / "grades.csv", "w", newline="", encoding="utf-8") as f:
        csv.writer(f).writerows([COLUMNS, *rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
