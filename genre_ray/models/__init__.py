"""Networks, one per file, with their preparation and outputs. A network maps prepared inputs to one logit per label."""
