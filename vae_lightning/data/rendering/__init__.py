"""Draws one face from its factors: NumPy only, one noun a file, `drawing.draw_face` puts them together."""
