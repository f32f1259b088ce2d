"""Systems: what is trained, one a file, each a value that learner, predictor and bundles use without knowing its name."""
