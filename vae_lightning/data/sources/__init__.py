"""Data sources: each module here that has a SOURCE can be trained on, as data.source=<name of the module>."""
