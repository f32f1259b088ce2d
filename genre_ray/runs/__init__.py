"""Runs: who owns an output, what is to be done, what is done, and carrying it out on Ray."""
