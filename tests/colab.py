"""Run the main path as Colab would: its ipywidgets, IPython, matplotlib and numpy, in an environment of its own, .colab.

    python tests/colab.py [NAME …]        notebooks of the main path, or those named; outputs are not compared

Everything else, torch among it, comes from the environment that runs this script, whose packages .colab sees as well.
"""
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / ".colab"
COLAB = ["ipywidgets==7.7.1", "ipython==7.34.0", "matplotlib==3.10.0", "numpy==2.1.3"]  # autumn 2026


def made():
    "The environment's Python; made, or made anew when COLAB changes."
    python, stamp = PLACE / "bin/python", PLACE / "versions.txt"
    wanted = "\n".join([*COLAB, sys.executable])
    if not stamp.exists() or stamp.read_text() != wanted:
        venv.create(PLACE, clear=True, with_pip=True)
        own = Path(subprocess.check_output([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True).strip())
        (own / "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")
        subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-input", *COLAB], check=True)
        stamp.write_text(wanted)
    return python


def main(names):
    paths = sorted(ROOT.glob("nbs/[0-9][0-9]_*.ipynb")) if not names else [ROOT / f"nbs/{name}.ipynb" for name in names]
    if lost := [path.name for path in paths if not path.exists()]:
        sys.exit(f"There is no {', '.join(lost)} in nbs: name lessons of the main path, such as 03_shapes.")
    python = made()
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    versions = "import IPython, ipywidgets, matplotlib, numpy, sys, torch\nprint('Python', sys.version.split()[0], *" \
               "[f'{m.__name__} {m.__version__}' for m in (IPython, ipywidgets, matplotlib, numpy, torch)])"
    subprocess.run([python, "-c", versions], env=env, check=True)
    return subprocess.run([python, "-m", "pytest", "-q", "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=600",
                           "-p", "no:cacheprovider", "-p", "no:xdist", *map(str, paths)], env=env, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
