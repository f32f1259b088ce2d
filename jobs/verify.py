"""python jobs/verify.py --config jobs/configs/verify.yaml

On a cluster: ray job submit --working-dir . -- python jobs/verify.py --config jobs/configs/verify.yaml
"""

from genre_ray.commands.entry import run_job
from genre_ray.commands.verify import VerifyConfiguration, run

if __name__ == "__main__":
    raise SystemExit(run_job(VerifyConfiguration, run))
