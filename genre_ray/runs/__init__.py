"""The engine: run identity, output, plan, stages on Ray Data, commits and verification."""
