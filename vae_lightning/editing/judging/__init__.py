"""Scores all ways to edit by a network that guided none of them."""
