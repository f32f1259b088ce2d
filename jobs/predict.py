"""python jobs/predict.py --config jobs/configs/predict.yaml

On a cluster: ray job submit --working-dir . -- python jobs/predict.py --config jobs/configs/predict.yaml
"""

from genre_ray.commands.entry import run_job
from genre_ray.commands.predict import PredictConfiguration, run

if __name__ == "__main__":
    raise SystemExit(run_job(PredictConfiguration, run))
