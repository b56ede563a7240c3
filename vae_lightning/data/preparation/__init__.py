"""For `vae prepare`: downloads CelebA, checks it, and explains what is wrong."""
