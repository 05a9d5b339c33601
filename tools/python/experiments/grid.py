"""A grid of runs: every variant on every preset at every seed, each one `ddpo up`."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Variant:
    """A row of the table: its name and what it sets over the preset."""

    name: str
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Grid:
    presets: Sequence[str]
    variants: Sequence[Variant]
    # What every run sets; a variant's own settings win, and so do those of a variant on a preset.
    settings: Mapping[str, object] = field(default_factory=dict)
    special: Mapping[tuple[str, str], Mapping[str, object]] = field(default_factory=dict)

    def settings_of(self, variant: Variant, preset: str, seed: int) -> dict[str, object]:
        own = self.special.get((variant.name, preset), {})
        return {"run.seed": seed, **self.settings, **variant.settings, **own}


@dataclass(frozen=True)
class Result:
    summary: dict
    epochs: list[dict]  # the lines of metrics.jsonl


def folder(work: Path, variant: Variant, preset: str, seed: int) -> Path:
    return work / f"{preset}-{variant.name}-{seed}"


def is_complete(run: Path) -> bool:
    return (run / "summary.json").exists()


def runs(grid: Grid, seeds: Sequence[int]) -> Iterator[tuple[Variant, str, int]]:
    """Seeds outermost, so that a grid that is cut short has whole seeds."""
    for seed in seeds:
        for preset in grid.presets:
            for variant in grid.variants:
                yield variant, preset, seed


def run_all(grid: Grid, seeds: Sequence[int], ddpo: Path, work: Path) -> None:
    """Runs what is not complete yet; a run that was cut short goes on in its folder."""
    work.mkdir(parents=True, exist_ok=True)
    todo = [cell for cell in runs(grid, seeds) if not is_complete(folder(work, *cell))]
    for number, (variant, preset, seed) in enumerate(todo, 1):
        run = folder(work, variant, preset, seed)
        started = time.monotonic()
        print(f"{number} of {len(todo)}: {run.name}", file=sys.stderr, flush=True)
        command = [str(ddpo), "up", "--config", preset, "--run-dir", str(run)]
        for key, value in grid.settings_of(variant, preset, seed).items():
            command += ["--set", f"{key}={value}"]
        with (work / f"{run.name}.log").open("w") as log:
            subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=True)
        print(f"   {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def read(work: Path, variant: Variant, preset: str, seed: int) -> Result:
    run = folder(work, variant, preset, seed)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return Result(json.loads((run / "summary.json").read_text()), [json.loads(line) for line in lines])
