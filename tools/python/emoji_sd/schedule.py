"""The learning rate over a run of fixed length."""

import math


def learning_rate(progress, peak, warm_up=0.02):
    """A short linear warm-up, then half a cosine to 2 % of the peak. `progress` in [0, 1]."""
    if progress < warm_up:
        return peak * (0.05 + 0.95 * progress / warm_up)
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))
