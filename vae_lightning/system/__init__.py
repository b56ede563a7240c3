"""Files, names, progress bars, terminal, signals and devices; nothing here depends on VAEs."""
