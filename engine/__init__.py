"""Plain PyTorch: the loop, losses, metrics, optimizers, schedules, devices, checkpoints, weights."""
