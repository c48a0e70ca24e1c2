"""Training speed and memory: the loop that copied scripts use against ours, network by network.

    python bench/train.py [--nets r1 64 128] [--channels 1 3] [--seconds 60] [--rounds 5]    race, append to bench/train.csv, print
    python bench/train.py --table                                                            print what has been measured
    python bench/train.py --script PATH [ARGS ...]                                           time another script as a whole process

Both loops take turns on the same images, network and batch, each in a process of its own, whose peak memory is kept too; nothing
else may run meanwhile. The table joins all rows of this machine, torch and device: run it three times, half an hour apart.
"""
import argparse
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from statistics import median
from time import perf_counter

HERE = Path(__file__).resolve().parent
ROWS = HERE / "train.csv"
NETS = {"r1": "reference 1, 28×28", "64": "paper, 64×64, 64 filters", "128": "paper, 64×64, 128 filters"}
CHANNELS = 1, 3
SAME = "net", "channels", "machine", "device", "torch", "precision"  # rows alike in these are joined


def recipe_of(net: str, channels: int):
    "The recipe of a network on data that are always there: digits, or drawn faces at 64×64 in colour."
    from dcgan.recipes import RECIPES
    if net == "r1":
        return RECIPES["mnist28"].replace(name=f"r1-{channels}", data="digits", rotate=0., channels=channels)
    return RECIPES["mnist64-paper"].replace(
        name=f"paper{net}-{channels}",
        filters=int(net),
        channels=channels,
        data="faces" if channels == 3 else "digits",
    )


def images_of(recipe, n: int | None = 2048):
    "Its images; grey digits in colour where colour is asked for."
    from dcgan.datasets.sources import load
    return load(recipe.data, image_size=recipe.image_size, channels=recipe.channels, images=n).images


def measure(net: str, channels: int, given: argparse.Namespace) -> dict:
    "One network's row."
    import torch

    from dcgan.engine.cost import cost, textbook_macs
    from dcgan.engine.speed import DTYPES, peak, race
    from dcgan.values import machine
    recipe = recipe_of(net, channels)
    found = race(recipe, images_of(recipe), given.rounds, given.seconds, given.precision, given.device)
    limit = peak(DTYPES[found.precision], found.device)
    name = torch.cuda.get_device_name(found.device) if found.device.type == "cuda" else found.device.type
    least, most = found.spread
    return {
        "net": net,
        "channels": channels,
        "batch": recipe.batch_size,
        "textbook": round(found.textbook, 2),
        "ours": round(found.ours, 2),
        "ratio": round(found.ratio, 3),
        "least": round(least, 3),
        "most": round(most, 3),
        "rounds": given.rounds,
        "seconds": given.seconds,
        "peak_gflops": round(limit),
        "textbook_share": round(2 * textbook_macs(recipe) * found.textbook / 1e9 / limit, 4),
        "share": round(cost(recipe).flops * found.ours / 1e9 / limit, 4),
        "textbook_mib": round(found.memories[0]),
        "ours_mib": round(found.memories[1]),
        "precision": found.precision,
        "date": datetime.now().isoformat(timespec="minutes"),
        "machine": machine(),
        "device": name,
        "torch": torch.__version__,
        "busy": round(found.busy, 1),
    }


def table() -> str:
    "Rows alike in net, machine, device and torch, joined: medians over the runs, the least and the greatest ratio of a round."
    from measuring import read
    if not ROWS.exists():
        return f"Nothing has been measured yet: {ROWS.name} is not there."
    groups: dict[tuple, list[dict]] = {}
    for row in read(ROWS):
        groups.setdefault(tuple(row[k] for k in SAME), []).append(row)
    lines = [
        "| net | channels | textbook, images/s | ours, images/s | ratio (least to most) | share of the peak, textbook | ours | MiB, textbook | ours | runs |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for rows in groups.values():
        mid = {
            k: median(float(row[k]) for row in rows)
            for k in ("textbook", "ours", "ratio", "textbook_share", "share", "textbook_mib", "ours_mib")
        }
        least, most = min(float(row["least"]) for row in rows), max(float(row["most"]) for row in rows)
        lines.append(
            f"| {NETS.get(rows[0]['net'], rows[0]['net'])} | {rows[0]['channels']} | {mid['textbook']:,.1f} | {mid['ours']:,.1f} "
            f"| {mid['ratio']:.2f} ({least:.2f} to {most:.2f}) | {mid['textbook_share']:.1%} | {mid['share']:.1%} "
            f"| {mid['textbook_mib']:,.0f} | {mid['ours_mib']:,.0f} | {len(rows)} |"
        )
    where = dict.fromkeys(
        f"{row['machine']}; {row['device']}, {row['precision']}, torch {row['torch']}; {row['date'][:10]}"
        for rows in groups.values()
        for row in rows
    )
    return "\n".join([*lines, "", *where])


def script(words: list[str]) -> int:
    "Run another script as a whole process; say how long it took and how it ended. Its exit status."
    if not Path(words[0]).is_file():
        raise ValueError(f"There is no script {words[0]}.")
    start = perf_counter()
    status = subprocess.run([sys.executable, *words]).returncode
    print(f"{perf_counter() - start:.1f} s, exit status {status}: {' '.join(words)}")
    return 0 if status == 0 else 1


def flags(argv: list[str]) -> argparse.Namespace:
    "The words as values; ValueError in a sentence for what can't be meant."
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.error = lambda message: (_ for _ in ()).throw(ValueError(f"{message}; see --help"))
    parser.add_argument("--nets", nargs="+", default=list(NETS), choices=NETS, help="which networks")
    parser.add_argument(
        "--channels",
        nargs="+",
        type=int,
        default=list(CHANNELS),
        choices=CHANNELS,
        help="1: digits; 3: faces, or digits in colour",
    )
    parser.add_argument("--seconds", type=float, default=60., help="of one race")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each loop")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, …")
    parser.add_argument("--precision", default="auto", help="of ours")
    parser.add_argument("--table", action="store_true", help="print what has been measured, measure nothing")
    parser.add_argument("--script", nargs=argparse.REMAINDER, help="a script and its words; must come last")
    given = parser.parse_args(argv)
    if given.script == []:
        raise ValueError("--script needs the path of a script")
    if given.rounds < 1:
        raise ValueError(f"--rounds is {given.rounds}; it must be a whole number from 1")
    if not 0 < given.seconds < 1e6:
        raise ValueError(f"--seconds is {given.seconds}; it must be above 0")
    return given


def main(argv: list[str]) -> int:
    "Exit status: 0; 1 for another script that failed; 2 for what can't be meant."
    try:
        given = flags(argv)
        if given.script:
            return script(given.script)
        if given.table:
            print(table())
        else:
            from measuring import add
            for net in given.nets:
                for channels in given.channels:
                    add(ROWS, row := measure(net, channels, given))
                    print(
                        f"{NETS[net]}, {channels} channels: {row['ratio']:.2f} times ({row['least']:.2f} to {row['most']:.2f})",
                        flush=True,
                    )
            print(table())
    except (ValueError, OSError) as e:
        print(f"train.py: {str(e).rstrip('.')}.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
