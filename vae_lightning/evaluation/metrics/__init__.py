"""The metrics of `vae evaluate`, one file each."""
