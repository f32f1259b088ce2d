"""python jobs/evaluate.py --config jobs/configs/evaluate.yaml

On a cluster: ray job submit --working-dir . -- python jobs/evaluate.py --config jobs/configs/evaluate.yaml
"""

from genre_ray.commands.entry import run_job
from genre_ray.commands.evaluate import EvaluateConfiguration, run

if __name__ == "__main__":
    raise SystemExit(run_job(EvaluateConfiguration, run))
