"""Every way to edit, scored by a network that guided none of them."""
