"What the measurements here share: the rows of a CSV file, and the end of a command."
import csv
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from filelock import FileLock

from dcgan.plots import write_aside


def read(path: Path) -> list[dict]:
    "All rows, as text; none where there is no file."
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[dict], columns: Iterable[str] = ()) -> None:
    "The file anew, whole at any time; its columns are those of the first row, if no others are named."
    with write_aside(path) as aside, open(aside, "w", newline="", encoding="utf-8") as file:
        out = csv.DictWriter(file, list(columns or rows[0]), extrasaction="ignore", lineterminator="\n")
        out.writeheader()
        out.writerows(rows)


def add(path: Path, *rows: dict) -> None:
    "Rows more, whose columns are the file's from now on. Several processes may add at once."
    with FileLock(Path(tempfile.gettempdir()) / f"{path.name}.lock"):
        write(path, [*read(path), *rows], rows[0])


def command(main: Callable[[list[str]], None]) -> None:
    "Run `main` on the words after the script's name; a user's mistake is a sentence and no traceback."
    try:
        main(sys.argv[1:])
    except (ValueError, OSError) as e:
        sys.exit(f"{Path(sys.argv[0]).name}: {e}")
