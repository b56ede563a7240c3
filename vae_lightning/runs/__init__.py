"""Run folders: names, status, checkpoints, and trained models with their data."""
