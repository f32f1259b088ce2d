"""python jobs/calibrate.py --config jobs/configs/calibrate.yaml

On a cluster: ray job submit --working-dir . -- python jobs/calibrate.py --config jobs/configs/calibrate.yaml
"""

from genre_ray.commands.calibrate import CalibrateConfiguration, run
from genre_ray.commands.entry import run_job

if __name__ == "__main__":
    raise SystemExit(run_job(CalibrateConfiguration, run))
