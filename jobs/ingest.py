"""python jobs/ingest.py --config jobs/configs/ingest.yaml

On a cluster: ray job submit --working-dir . -- python jobs/ingest.py --config jobs/configs/ingest.yaml
"""

from genre_ray.commands.entry import run_job
from genre_ray.commands.ingest import IngestConfiguration, run

if __name__ == "__main__":
    raise SystemExit(run_job(IngestConfiguration, run))
