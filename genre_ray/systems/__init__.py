"""Systems, one a file: each is a value that learner, predictor and bundles use without knowing its name."""
