"""`vae explore`: a page to play with trained runs. What is of Gradio lies in controls, tabs, page and server."""
