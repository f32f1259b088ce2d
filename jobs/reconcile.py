"""python jobs/reconcile.py --config jobs/configs/reconcile.yaml

On a cluster: ray job submit --working-dir . -- python jobs/reconcile.py --config jobs/configs/reconcile.yaml
"""

from genre_ray.commands.entry import run_job
from genre_ray.commands.reconcile import ReconcileConfiguration, run

if __name__ == "__main__":
    raise SystemExit(run_job(ReconcileConfiguration, run))
