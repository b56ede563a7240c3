"""Latents after training: priors, directions and statistics fitted to them, and paths between them."""
