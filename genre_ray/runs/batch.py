"""A batch job from its configuration to its tables: claim, plan, execute, count."""

import logging
from collections.abc import Iterable
from typing import Any, Protocol

from genre_ray.config import JobConfiguration
from genre_ray.runs import cluster, estimate
from genre_ray.runs.execute import execute
from genre_ray.runs.identity import make_identity
from genre_ray.runs.inventory import Inventory
from genre_ray.runs.ledger import Ledger, Totals
from genre_ray.runs.plan import WorkItem, settle_plans
from genre_ray.runs.worker import Source, Step
from genre_ray.storage import objects
from genre_ray.storage.objects import StoredFile

logger = logging.getLogger(__name__)

DONE, TOO_MANY_REJECTED = 0, 3


class ListedSource(Source, Protocol):
    """A source that knows its inputs."""

    def list_inputs(self) -> Iterable[StoredFile]:
        """The inputs as they are now, in whatever order."""
        ...

    def cut(self, files: Any, rows_per_shard: int) -> Iterable[WorkItem]:
        """Work items of new inputs, which come sorted by address and may be more than memory holds."""
        ...


def run_batch(
    configuration: JobConfiguration, *, job: str, table: str, source: ListedSource, step: Step, **sources: Any
) -> int:
    """Write `output/<table>` and `output/rejected`, whole shards at a time, each once.

    Args:
        configuration: the job's.
        job: its name.
        table: the name of the data table.
        source: where rows come from.
        step: what is done with them.
        sources: what the identity holds beside the settings: ids of bundles, versions of tables.

    Returns:
        The job's exit code: 0, or 3 when more rows were rejected than `max_rejected`.
    """
    execution, output = configuration.execution, objects.absolute(configuration.output)
    with Inventory(source.list_inputs()) as inventory:
        if configuration.dry_run:
            items = list(source.cut(inventory, execution.rows_per_shard))
            for line in estimate.describe(items, source, step, execution):
                logger.info("%s", line)
            return DONE
        identity = make_identity(job, configuration.identity(), **sources)
        ledger = Ledger.claim(output, table, step.schema, identity, resume=configuration.resume)
        plans = settle_plans(output, inventory, source.cut, execution.rows_per_shard)
    if remaining := ledger.remaining(plans):
        cluster.connect()
        shards = execute(ledger, remaining, source, step, execution)
        done = f"run {ledger.run} made {shards} shards durable"
    else:
        done = f"nothing to do, run {ledger.run} is complete"
    totals = ledger.totals()
    logger.info("%s: %s: %s", output, done, totals)
    return exit_code(totals, configuration)


def exit_code(totals: Totals, configuration: JobConfiguration) -> int:
    """Whether the share of rejected rows is one that the configuration accepts."""
    limit = configuration.max_rejected
    if limit is None or totals.rejected <= limit:
        return DONE
    logger.error("%d rows were rejected, max_rejected allows %d: see the rejected table", totals.rejected, limit)
    return TOO_MANY_REJECTED
