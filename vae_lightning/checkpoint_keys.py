"""Names in a checkpoint. They have a file of their own, so that who reads one needs nothing of what trains."""

MODEL_PREFIX = "model."  # of the model's weights in the state_dict
RECONSTRUCTION_PREFIX = "objective.reconstruction."
RECORD_KEY = "run_record"
BEST_KEY = "best_validation"
