"""Identity of one person, pose and expression of another."""
