"""Makes `assets/models/emoji-sd`, a tiny pipeline of the Stable Diffusion 1.x shape."""
