"""Tensors to labelled grids, numbers to charts, PNG files."""
