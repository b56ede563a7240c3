"""What is fitted to latents after training: priors, directions, paths, statistics."""
