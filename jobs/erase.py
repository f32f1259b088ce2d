"""python jobs/erase.py --config jobs/configs/erase.yaml

On a cluster: ray job submit --working-dir . -- python jobs/erase.py --config jobs/configs/erase.yaml
"""

from genre_ray.commands.entry import run_job
from genre_ray.commands.erase import EraseConfiguration, run

if __name__ == "__main__":
    raise SystemExit(run_job(EraseConfiguration, run))
