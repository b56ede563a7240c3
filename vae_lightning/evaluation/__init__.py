"""How good a run is: metrics, and the card that holds them."""

# In the order of the card; here, so that --help need not import what measures them
METRIC_NAMES = (
    "likelihood",
    "iwae",
    "reconstructions",
    "latents",
    "disentanglement",
    "attribute_disentanglement",
    "probes",
    "samplers",
    "pictures",
    "fidelity",  # last: without a GPU it takes longer than all the others
)
