"""python jobs/train.py --config jobs/configs/train.yaml

On a cluster: ray job submit --working-dir . -- python jobs/train.py --config jobs/configs/train.yaml
"""

from genre_ray.commands.entry import run_job
from genre_ray.commands.train import TrainConfiguration, run

if __name__ == "__main__":
    raise SystemExit(run_job(TrainConfiguration, run))
