"""The grids of the documentation: which objectives, options and numbers are compared."""

from experiments.grid import Grid, Variant

# Reward queries of every run of the objectives' table.
QUERIES = 1920

# An iteration of the policy gradients has 64 samples, as in the demos. RWR wants many more (the paper has 10,000 beside
# 256): a quarter of all queries each. In an iteration RWR takes 75 optimizer steps of 32 samples, its sparse form 100 of
# 24.
RWR_SAMPLES = QUERIES // 4
RWR = {
    "run.epochs": QUERIES // RWR_SAMPLES,
    "sampling.samples_per_epoch": RWR_SAMPLES,
    "training.minibatch_size": 32,
    "training.learning_rate": 3e-4,
    "training.skip_last_steps": 0,
}
DENSE = {**RWR, "training.objective": "rwr", "training.inner_epochs": 5}
SPARSE = {**RWR, "training.objective": "rwr_sparse", "training.inner_epochs": 50}
# β multiplies the reward, so that it goes with the reward's scale: 1 / (0.25 standard deviations of the base model's
# rewards), as the paper's 0.2 roughly is on its JPEG sizes.
BETA = {"demo_compressibility": 40, "demo_incompressibility": 40, "demo_aesthetic": 4}

OBJECTIVES = Grid(
    presets=list(BETA),
    settings={
        "run.epochs": QUERIES // 64,
        "run.save_every": 1000,
        "checkpoint.every_epochs": 1000,
    },
    variants=[
        Variant("ddpo_is"),
        # One update an epoch instead of four.
        Variant("ddpo_sf", {"training.objective": "ddpo_sf", "training.gradient_accumulation": 4}),
        Variant("rwr", DENSE),
        Variant("rwr_sparse", SPARSE),
        # What RWR's regression does by itself: all weights are 1, to six digits, whatever the reward.
        Variant("rwr_uniform", {**DENSE, "training.rwr.beta": 1e-6}),
    ],
    special={("rwr", preset): {"training.rwr.beta": beta} for preset, beta in BETA.items()},
)

STALENESS = Grid(
    presets=["demo_compressibility"],
    settings={
        "run.epochs": 20,
        "run.save_every": 1000,
        "checkpoint.every_epochs": 1000,
    },
    variants=[
        Variant(
            f"S{staleness}-{'decoupled' if decoupled else 'plain'}",
            {
                "training.max_staleness": staleness,
                "training.decoupled": str(decoupled).lower(),
            },
        )
        for staleness in (0, 1, 2)
        for decoupled in (False, True)
    ],
)
