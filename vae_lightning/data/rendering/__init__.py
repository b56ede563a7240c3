"""Renders faces from their factors with NumPy: `drawing.draw_face` one face, `dataset.render_faces` a data set."""
