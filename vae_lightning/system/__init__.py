"""Files, names, terminal, signals, devices: knows nothing of VAEs."""
