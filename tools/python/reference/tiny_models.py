"""What the golden scripts' tiny random networks have in common."""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

import torch


def randomize(module: torch.nn.Module, generator: torch.Generator) -> None:
    """Random weights that keep activations near unit size and make every bias and norm count. They
    lie on fp16's grid, so that small files lose nothing."""
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() > 1:
            value = noise / parameter[0].numel() ** 0.5
        elif "norm" in name and name.endswith("weight"):
            value = 1 + 0.2 * noise
        else:
            value = 0.2 * noise
        parameter.data.copy_(value.half().float())


def make_all(description: str, names: Iterable[str], make: Callable[[str, Path], Path]) -> None:
    """A script's main: makes the model of each name in the folder that the command line gives."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    for name in names:
        print(f"made {make(name, args.out)}")
