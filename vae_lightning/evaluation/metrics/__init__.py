"""The metrics of `vae evaluate`, one file each: the file's name is the metric's."""
