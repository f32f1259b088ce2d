"""Networks, one a file, and what their outputs mean. A network maps prepared inputs to one logit per label."""
