"""The engine: continuous batching over a paged latent cache, on the trainer's own parameters."""
