"""python jobs/fuse.py --config jobs/configs/fuse.yaml

On a cluster: ray job submit --working-dir . -- python jobs/fuse.py --config jobs/configs/fuse.yaml
"""

from genre_ray.commands.entry import run_job
from genre_ray.commands.fuse import FuseConfiguration, run

if __name__ == "__main__":
    raise SystemExit(run_job(FuseConfiguration, run))
