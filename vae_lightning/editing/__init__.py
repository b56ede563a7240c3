"""Moving latents so that faces change in a chosen way, and measuring what else has changed."""
