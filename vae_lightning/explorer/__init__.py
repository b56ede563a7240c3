"""`vae explore`: a page to play with trained runs. Only controls, tabs, page and server import Gradio."""
