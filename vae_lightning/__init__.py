"""Variational autoencoders on CelebA faces: train, sweep, compare, show."""
