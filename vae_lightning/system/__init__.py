"""Files, names, progress bars, terminal, signals and devices; nothing here knows of VAEs."""
