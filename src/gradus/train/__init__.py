"""The training step: losses, optimizers, schedule, checkpoints, fit."""
