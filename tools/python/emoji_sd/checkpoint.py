"""Training state on disk, so that a run can be continued."""

import torch


def save(path, seconds, step, **parts):
    """Writes the `state_dict` of every part, then renames: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    states = {name: part.state_dict() for name, part in parts.items()}
    torch.save({"seconds": seconds, "step": step, **states}, temporary)
    temporary.rename(path)


def resume(path, **parts):
    """Loads the parts if there is a checkpoint. Returns (seconds trained, steps done)."""
    if not path.exists():
        return 0.0, 0
    state = torch.load(path, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return state["seconds"], state["step"]
