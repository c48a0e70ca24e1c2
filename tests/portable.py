"Run the lessons as other machines would, and list the cells that print something else there: `make portable`."
import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

PROCESSORS = {  # what torch, oneDNN, MKL and OpenBLAS may use of this processor
    "SSE 4.1": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_CBWR": "COMPATIBLE",
        "OPENBLAS_CORETYPE": "Nehalem",
    },
    "AVX2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_CBWR": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
    },
}
THREADS = 1, 2
NO_BF16 = """\
import torch
torch.cpu._is_avx512_bf16_supported = torch.cpu._is_amx_tile_supported = lambda: False
del torch
"""  # what every kernel runs first: older processors don't multiply bf16, so `--precision auto` is fp32 there


def settings():
    "Each setting's name and its environment variables."
    for processor, variables in PROCESSORS.items():
        for threads in THREADS:
            yield f"{processor}, {threads} thread{'s' * (threads > 1)}", variables | {"OMP_NUM_THREADS": str(threads)}


def differing(output):
    "The cells that failed, out of what pytest printed."
    return re.findall(r"^(?:FAILED|ERROR) (\S+?(?:::Cell \d+)?)(?: - .*)?$", output, re.M)


def older_kernels(folder):
    "Make the folder one for IPython whose kernels say that this processor has no bf16; its environment variable."
    startup = Path(folder) / "profile_default" / "startup"
    startup.mkdir(parents=True, exist_ok=True)
    (startup / "no_bf16.py").write_text(NO_BF16)
    return {"IPYTHONDIR": str(folder)}


def cells_that_differ(command, name, variables, more):
    "Run the command under one setting, and print what pytest says if a cell fails."
    print(f"{name}: {' '.join(f'{k}={v}' for k, v in variables.items())}", flush=True)
    done = subprocess.run(
        command,
        env=os.environ | variables | more,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    cells = differing(done.stdout)
    if done.returncode and not cells:
        cells = [f"pytest ended with status {done.returncode}"]
    print(done.stdout if cells else "".join(done.stdout.splitlines(keepends=True)[-1:]), flush=True)
    return cells


def one_core_each(command, threads):
    "The command with as many lessons at a time as leave each thread a core: two busy threads on one core take many times as long."
    if "-n" not in command:
        return command
    at = command.index("-n") + 1
    return [*command[:at], str(max(1, int(command[at]) // threads)), *command[at + 1:]]


def main(command):
    "Run the command, pytest over the lessons, under each setting; the exit status."
    with TemporaryDirectory() as folder:
        found = {
            name: cells_that_differ(
                one_core_each(command, int(variables["OMP_NUM_THREADS"])), name, variables, older_kernels(folder)
            )
            for name, variables in settings()
        }
    print("Cells that differ:")
    for name, cells in found.items():
        print(f"  {name:20} {', '.join(cells) or 'none'}")
    return 1 if any(found.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
