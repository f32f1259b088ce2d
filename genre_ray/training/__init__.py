"""From features and ground truth to a trained network: systems, examples and the one training loop."""
