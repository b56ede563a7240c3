"""Edits of attributes: directions, single latents, guidance by a classifier."""
