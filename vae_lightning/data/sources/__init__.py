"""Where images come from: CelebA, a folder, noise; rendered faces lie in `rendering/`."""
