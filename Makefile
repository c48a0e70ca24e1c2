# On a fresh machine, two commands do everything: `make train` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
DOCS := .venv/.docs
NBGRADER := .venv/.nbgrader
NODE := playground/node_modules/.package-lock.json
NOTEBOOKS := $(sort $(wildcard nbs/*.ipynb nbs/under_the_hood/*.ipynb))
LESSON = $(basename $(notdir $(N)))
MATCHING = $(filter %/$(LESSON).ipynb,$(NOTEBOOKS)) $(foreach nb,$(NOTEBOOKS),$(if $(findstring /$(LESSON)_,$(nb)),$(nb)))
NB = $(if $(N),$(or $(strip $(MATCHING)),$(error N=$(N) is no lesson here; give its name or number, such as N=03_shapes or N=03)),$(NOTEBOOKS))
JOBS ?= 2
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
# Lessons run $(JOBS) at a time, so each gets its share of the cores; bars and debugger notes would go to stored outputs.
LESSON_ENV = OMP_NUM_THREADS=$${OMP_NUM_THREADS:-$(shell expr \( $(CORES) + $(JOBS) - 1 \) / $(JOBS))} \
	TQDM_DISABLE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 PYDEVD_DISABLE_FILE_VALIDATION=1
NBVAL = $(BIN)/python -m pytest -q --nbval --nbval-current-env --nbval-sanitize-with=tests/nbval.cfg \
	--nbval-cell-timeout=300 -p no:cacheprovider -n $(JOBS) --dist loadfile $(NB)
FAILED = { echo "make $@: FAILED, see above" >&2; exit 1; }

.PHONY: help setup train test check nbval portable pytest lab execute clean-notebooks export headers index readme lesson judge ablations bench site site-test playground classroom grade colab minutes wheel

help:
	@echo "make train [ARGS='--epochs 5']  train on the digits, write a numbered folder runs/digits-001"
	@echo "make test                       everything that is checked: sync, lessons, tests"
	@echo "make lab                        open JupyterLab on the lessons"
	@echo "make nbval [N=03]               run the lessons again and compare every stored output"
	@echo "make portable [N=03_shapes]     the same as other machines would: older processors, one thread and two; an hour for all"
	@echo "make colab [N=03_shapes]        run the main path with Colab's versions of IPython, ipywidgets, matplotlib and numpy"
	@echo "make minutes [N=03_shapes]      measure how long lessons take to run, for the index and the site"
	@echo "make lesson N=03_shapes         export, execute, clean and check one lesson"
	@echo "make execute [N=03_shapes]      run notebooks and store their outputs"
	@echo "make clean-notebooks            drop notebook noise and join torn outputs (outputs and counts stay)"
	@echo "make export                     write dcgan/, links and README.md from the notebooks"
	@echo "make headers | index | readme   one of these alone: links; the index's tables and map; README.md"
	@echo "make site | site-test           build the course as web pages into _site/html; build it anew and read it with a browser"
	@echo "make playground                 the site's page that draws in the browser, into _site/html/playground; needs npm"
	@echo "make ablations                  train the default with one guideline undone at a time: hours; goes on where it stopped"
	@echo "make bench [ARGS='--nets r1']   race our loop against the textbook's on six networks: minutes on a quiet machine; adds rows to bench/train.csv"
	@echo "make classroom [N=01_game]      notebooks for a class, in class/students and class/teacher; classroom/README.md says more"
	@echo "make grade [N=01_game]          grade class/hand_ins/STUDENT/01_game.ipynb with nbgrader; points in class/grades.csv"
	@echo "make wheel                      build the package as one file in dist/, to be uploaded where there is no clone, as in Colab"
	@echo "make judge                      train the digits' judge anew, about two minutes; rewrites dcgan/assets/judges/digits"
	@echo "make setup [PYTHON=python3.12]  make or refresh .venv; all of the above do it first"

setup: $(STAMP)
	@:

$(STAMP): settings.ini setup.py pyproject.toml constraints.txt
	@test -x $(BIN)/python || command -v $(PYTHON) >/dev/null || \
		{ echo "There is no $(PYTHON) here. Install Python 3.10 or newer, or name it: make setup PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "This needs Python 3.10 or newer, but $(PYTHON) is %d.%d. Name another one: make setup PYTHON=python3.12" % sys.version_info[:2])'
	@test -x $(BIN)/python || echo "Making .venv and installing into it: a few minutes, most of them for PyTorch."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || \
		{ rm -rf .venv; echo "$(PYTHON) could not make .venv; on Debian and Ubuntu, install python3-venv first." >&2; exit 1; }
	@$(BIN)/python -m pip install -qq --no-input --disable-pip-version-check -c constraints.txt -e '.[dev]' || \
		{ echo "Installing into .venv failed, see above. The next make tries again." >&2; exit 1; }
	@touch $@

train: setup
	@$(BIN)/dcgan train digits $(ARGS)

test: setup
	@$(MAKE) --no-print-directory check || $(FAILED)
	@$(MAKE) --no-print-directory nbval N= || $(FAILED)
	@$(MAKE) --no-print-directory pytest ARGS= || $(FAILED)
	@echo "make test: all passed (package and README in step with the notebooks, $(words $(NOTEBOOKS)) notebooks, tests)"

check: setup
	@$(BIN)/python nbs/_sync.py --check
	@$(BIN)/ruff check -q . || { echo "ruff found the above: one statement a line, sorted imports; pyproject.toml has the rules" >&2; exit 1; }
	@$(BIN)/nb-clean check -n -o -c --preserve-cell-metadata-field tags -- $(NOTEBOOKS) || { echo "These notebooks hold metadata: make clean-notebooks" >&2; exit 1; }

nbval: setup
	@$(LESSON_ENV) $(NBVAL)

portable: setup
	@$(LESSON_ENV) $(BIN)/python tests/portable.py $(NBVAL) || $(FAILED)

colab: setup
	@nice -n 5 $(BIN)/python tests/colab.py $(basename $(notdir $(N))) || $(FAILED)

minutes: setup
	@$(BIN)/python site/reading.py measure $(basename $(notdir $(N)))
	@$(BIN)/python nbs/_sync.py index readme

pytest: setup
	@MPLBACKEND=Agg OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -q --durations=5 -n $(JOBS) --dist loadfile $(ARGS)

lab: setup
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/nbs/index.ipynb $(ARGS)

execute: setup
	@$(LESSON_ENV) $(BIN)/jupyter nbconvert --log-level=WARN --to notebook --execute --inplace \
		--ExecutePreprocessor.timeout=300 --ExecutePreprocessor.kernel_name=python3 $(NB)

clean-notebooks: setup
	@$(BIN)/nb-clean clean -o -c --preserve-cell-metadata-field tags -- $(NB)
	@$(BIN)/python nbs/_sync.py streams

headers index readme export: setup
	@$(BIN)/python nbs/_sync.py $(filter-out export,$@)

$(DOCS): $(STAMP)
	@$(BIN)/python -m pip install -qq --no-input --disable-pip-version-check -c constraints.txt -e '.[dev,docs]' || \
		{ echo "Installing what builds the site failed, see above. The next make tries again." >&2; exit 1; }
	@touch $@

site: $(DOCS)
	@$(BIN)/python site/pages.py _site/source
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m sphinx -q -W --keep-going -c site -d _site/doctrees -b html _site/source _site/html
	@echo "The site is in _site/html: open index.html there. make playground adds the page that draws."

$(NODE): playground/package.json playground/package-lock.json
	@command -v npm >/dev/null || { echo "make playground fetches onnxruntime-web with npm, which is not here. Install Node.js 18 or newer; npm comes with it." >&2; exit 1; }
	@npm ci --prefix playground --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null || \
		{ echo "Fetching onnxruntime-web failed, see above. The next make tries again." >&2; exit 1; }
	@touch $@

playground: $(DOCS) $(NODE)
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python playground/build.py _site/html/playground
	@echo "The playground is in _site/html/playground. Look at it by: $(BIN)/python -m http.server --directory _site/html"

site-test: $(DOCS)
	@rm -rf _site
	@$(MAKE) --no-print-directory site playground || $(FAILED)
	@$(BIN)/python -m pytest -q -s site/browser.py site/play.py || $(FAILED)

lesson: setup
	@test -n "$(N)" || { echo "Which lesson? For example: make lesson N=03_shapes" >&2; exit 2; }
	@$(MAKE) --no-print-directory export
	@$(MAKE) --no-print-directory execute clean-notebooks nbval N=$(N)

ablations: setup
	@$(BIN)/python bench/ablations.py train --workers $(JOBS)

bench: setup
	@$(BIN)/python bench/train.py $(ARGS)

# What an earlier build left in build/ would go into the wheel as well.
wheel: setup
	@rm -rf build dist/dcgan-*.whl
	@$(BIN)/python -m pip wheel -qq --no-input --disable-pip-version-check --no-deps --no-build-isolation --no-index -w dist . || $(FAILED)
	@rm -rf build
	@echo "The package is in $$(ls dist/dcgan-*.whl): in Colab, upload it by the folder on the left, then run the notebook from its first cell."

judge: setup
	@$(BIN)/python bench/judge.py

classroom: setup
	@$(BIN)/python classroom/kit.py $(N) $(if $(SEED),--seed '$(SEED)')

$(NBGRADER): $(STAMP)
	@$(BIN)/python -m pip install -qq --no-input --disable-pip-version-check -c constraints.txt -e '.[dev,classroom]' || \
		{ echo "Installing what grades failed, see above. The next make tries again." >&2; exit 1; }
	@touch $@

grade: $(NBGRADER)
	@$(LESSON_ENV) $(BIN)/python classroom/grade.py $(N) $(if $(LIMIT),--limit $(LIMIT))
