"""Runs a grid of docs/experiments.md, and puts its table and plot there."""

import argparse
from pathlib import Path

from experiments import tables
from experiments.grid import Grid, read, run_all
from experiments.grids import OBJECTIVES, STALENESS

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs/experiments.md"
GRIDS = {
    "objectives": (OBJECTIVES, ["compressibility", "incompressibility", "aesthetic"]),
    "staleness": (STALENESS, ["compressibility"]),
}


def staleness_is_sound(grid: Grid, seeds: list[int], work: Path) -> str:
    """What the runs' ledgers and staleness say, or an error that names the run."""
    epochs = 0
    for variant in grid.variants:
        bound = variant.settings.get("training.max_staleness", 0)
        for preset in grid.presets:
            for seed in seeds:
                for line in read(work, variant, preset, seed).epochs:
                    ledger = line["ledger"]
                    dropped = sum(ledger["dropped"].values())
                    if line["staleness_max"] > bound:
                        raise SystemExit(f"{variant.name}, seed {seed}, epoch {line['epoch']}: {line['staleness_max']}")
                    if ledger["received"] != ledger["trained"] + dropped + ledger["buffered"]:
                        raise SystemExit(f"{variant.name}, seed {seed}, epoch {line['epoch']}: {ledger}")
                    epochs += 1
    return f"In all {epochs} epochs no sample was staler than its run allows, and the ledger balanced.\n"


def put_into_page(name: str, text: str) -> None:
    """Replaces what stands between the page's comments `<!-- NAME -->` and `<!-- end of NAME -->`."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    page = PAGE.read_text()
    before, found, rest = page.partition(begin)
    _, found_too, after = rest.partition(end)
    if not found or not found_too:
        raise SystemExit(f"{PAGE.relative_to(ROOT)} has no {begin.strip()} … {end.strip()}")
    PAGE.write_text(before + begin + text + end + after)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools/experiments", description=__doc__)
    parser.add_argument("grid", choices=GRIDS)
    parser.add_argument("--work-dir", type=Path, required=True, help="keeps the runs; a second call goes on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--ddpo", type=Path, default=ROOT / "build/release/bin/ddpo")
    args = parser.parse_args()
    grid, columns = GRIDS[args.grid]
    work = args.work_dir / args.grid
    run_all(grid, args.seeds, args.ddpo, work)
    text = tables.table(grid, args.seeds, work, columns) + "\n" + staleness_is_sound(grid, args.seeds, work)
    plot = ROOT / f"docs/images/{args.grid}.svg"
    tables.plot(grid, args.seeds, work, columns, plot)
    put_into_page(args.grid, text)
    print(text + f"plot: {plot.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
