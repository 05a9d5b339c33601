"""The fixture files of `ddpo parity`: one safetensors file with `kind` and `params` in its metadata."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file


@dataclass
class Fixture:
    name: str  # of the file
    kind: str
    params: dict[str, Any]
    inputs: dict[str, torch.Tensor]
    outputs: dict[str, torch.Tensor]

    def write(self, folder: Path) -> Path:
        path = folder / f"{self.name}.safetensors"
        write_fixture(path, self.kind, self.params, self.inputs, self.outputs)
        return path


def write_fixture(
    path: Path,
    kind: str,
    params: dict[str, Any],
    inputs: dict[str, torch.Tensor],
    outputs: dict[str, torch.Tensor],
) -> None:
    """Writes `inputs` as in.NAME and `outputs` as out.NAME; LoRA tensors have NAMEs that start with `lora.`."""
    tensors = {f"in.{name}": value for name, value in inputs.items()}
    tensors |= {f"out.{name}": value for name, value in outputs.items()}
    tensors = {name: value.detach().clone().contiguous() for name, value in tensors.items()}
    save_file(tensors, path, metadata={"kind": kind, "params": json.dumps(params, sort_keys=True)})
