"""`vae prepare`: is the data there and whole, and where to get it."""
