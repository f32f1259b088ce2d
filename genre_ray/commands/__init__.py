"""The jobs: one file each, with the job's configuration and one function that carries it out."""
