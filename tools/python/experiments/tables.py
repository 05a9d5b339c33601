"""Tables in Markdown and learning curves as SVG, from the results of a grid."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot  # noqa: E402

from experiments.grid import Grid, Result, Variant, read  # noqa: E402

# The same file from the same numbers.
matplotlib.rcParams["svg.hashsalt"] = "ddpo"


def mean_and_spread(values: Sequence[float]) -> str:
    return f"{mean(values):+.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:+.2f}"


def gains(results: Sequence[Result]) -> list[float]:
    """Mean differences on the held-out pairs, in standard deviations of the base model's images."""
    return [result.summary["difference_in_base_stds"] for result in results]


def table(grid: Grid, seeds: Sequence[int], work: Path, columns: Sequence[str]) -> str:
    """A row a variant, a column a preset: the mean gain and its standard deviation over the seeds."""
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for variant in grid.variants:
        cells = [
            mean_and_spread(gains([read(work, variant, preset, seed) for seed in seeds]))
            for preset in grid.presets
        ]
        lines.append(f"| {variant.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def curve(work: Path, variant: Variant, preset: str, seeds: Sequence[int]) -> tuple[list, list, list]:
    """Reward queries, and the mean reward of their epoch: its mean and range over the seeds."""
    results = [read(work, variant, preset, seed) for seed in seeds]
    epochs = list(zip(*(result.epochs for result in results), strict=True))
    rewards = [[line["reward_mean"] for line in lines] for lines in epochs]
    queries = [lines[0]["samples_total"] for lines in epochs]
    return queries, [mean(r) for r in rewards], [(min(r), max(r)) for r in rewards]


def plot(grid: Grid, seeds: Sequence[int], work: Path, columns: Sequence[str], out: Path) -> None:
    figure, all_axes = pyplot.subplots(
        1, len(columns), figsize=(4.2 * len(columns), 3.4), layout="constrained", squeeze=False
    )
    for axes, preset, column in zip(all_axes[0], grid.presets, columns, strict=True):
        for variant in grid.variants:
            queries, means, ranges = curve(work, variant, preset, seeds)
            # An objective of few long epochs has few points.
            axes.plot(queries, means, label=variant.name, marker="o" if len(queries) < 10 else None)
            axes.fill_between(queries, *zip(*ranges, strict=True), alpha=0.15)
        axes.set(title=column, xlabel="reward queries", ylabel="mean reward of the epoch")
        axes.grid(alpha=0.3)
    all_axes[0][0].legend(fontsize="small")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, metadata={"Date": None})
    pyplot.close(figure)
