"""From a command line to a built training."""
