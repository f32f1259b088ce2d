"""Kinds of input as sources of rows: each lists, cuts and reads its inputs."""
