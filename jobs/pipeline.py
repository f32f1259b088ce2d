"""python jobs/pipeline.py --config jobs/configs/pipeline.yaml

On a cluster: ray job submit --working-dir . -- python jobs/pipeline.py --config jobs/configs/pipeline.yaml
"""

from genre_ray.commands.entry import run_job
from genre_ray.commands.pipeline import PipelineConfiguration, run

if __name__ == "__main__":
    raise SystemExit(run_job(PipelineConfiguration, run))
