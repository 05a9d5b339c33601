"""Prints the summaries of one preset's runs with several seeds, and tests the difference over the seeds.

Ends with status 1 unless the reward rose with every seed, each at p < 0.001 in its paired t-test.
"""

import argparse
import json
import math
import statistics
import sys
from pathlib import Path


def two_sided_p(t, degrees):
    """Of Student's distribution: twice the density's integral beyond |t|, by Simpson's rule over the
    angle u with t = √degrees · tan u, where the density is a power of cos u."""
    begin, end, parts = math.atan(abs(t) / math.sqrt(degrees)), math.pi / 2, 2000
    width = (end - begin) / parts
    values = [math.cos(begin + i * width) ** (degrees - 1) for i in range(parts + 1)]
    integral = width / 3 * (values[0] + values[-1] + 4 * sum(values[1:-1:2]) + 2 * sum(values[2:-1:2]))
    scale = math.gamma((degrees + 1) / 2) / (math.sqrt(math.pi) * math.gamma(degrees / 2))
    return min(1.0, 2 * scale * integral)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("summaries", nargs="+", help="summary.json files")
    args = parser.parse_args()
    runs = {Path(name).parent.name: json.loads(Path(name).read_text()) for name in args.summaries}
    print(f"{'run':<10}{'pairs':>6}{'base mean':>11}{'base sd':>9}{'fine-tuned':>11}{'difference':>11}"
          f"{'in base sd':>11}{'t':>8}{'p':>9}")  # fmt: skip
    for name, run in runs.items():
        print(f"{name:<10}{run['n']:>6}{run['base_mean']:>11.4f}{run['base_std']:>9.4f}"
              f"{run['final_mean']:>11.4f}{run['mean_difference']:>+11.4f}"
              f"{run['difference_in_base_stds']:>+11.2f}{run['t']:>8.2f}{run['p']:>9.1e}")  # fmt: skip
    differences = [run["mean_difference"] for run in runs.values()]
    if len(differences) > 1:
        deviation = statistics.stdev(differences)
        line = f"over the seeds: mean difference {statistics.mean(differences):+.4f} ± {deviation:.4f}"
        if deviation > 0:
            t = statistics.mean(differences) / (deviation / math.sqrt(len(differences)))
            line += f", t = {t:.2f}, p = {two_sided_p(t, len(differences) - 1):.2g}"
        print(line)
    rose = all(run["mean_difference"] > 0 and run["p"] < 1e-3 for run in runs.values())
    print("the reward rose with every seed" if rose else "the reward did NOT rise with every seed")
    sys.exit(0 if rose else 1)


if __name__ == "__main__":
    main()
