"""Run a batch job: claim the output, plan, execute and count."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from genre_ray.config import JobConfiguration
from genre_ray.runs import cluster, estimate
from genre_ray.runs.dataflow import Chain
from genre_ray.runs.execute import execute, refuse_impossible
from genre_ray.runs.identity import make_identity
from genre_ray.runs.inventory import Inventory
from genre_ray.runs.ledger import Ledger, Totals
from genre_ray.runs.plan import load_or_extend_plans
from genre_ray.runs.stages import Source, Stage
from genre_ray.storage import objects, tables

logger = logging.getLogger(__name__)

DONE, TOO_MANY_REJECTED = 0, 3


def run_batch(
    configuration: JobConfiguration,
    *,
    job: str,
    table: str,
    source: Source,
    stages: Sequence[Stage],
    properties: Mapping[str, str] | None = None,
    **sources: Any,
) -> int:
    """Write the tables `output/<table>` and `output/rejected`, committing each shard exactly once.

    Args:
        configuration: the job's configuration.
        job: name of the job.
        table: name of the data table.
        source: the source of rows.
        stages: the stages, in order.
        properties: Delta properties of the data table, which must follow from the identity.
        sources: further parts of the identity: ids of bundles, versions of tables.

    Returns:
        The exit code: 0, or 3 if more rows were rejected than `max_rejected`.
    """
    chain = Chain(source, tuple(stages))
    execution, output = configuration.execution, objects.absolute(configuration.output)
    with Inventory(source.list_inputs()) as inventory:
        if configuration.dry_run:
            items = list(source.make_work_items(inventory, execution.rows_per_shard))
            for line in estimate.describe(items, chain, execution):
                logger.info("%s", line)
            return DONE
        identity = make_identity(job, configuration.identity(), **sources)
        if not tables.is_table(objects.join(output, table)):
            # Before the claim, so that running again with a corrected setting needs no --resume.
            cluster.connect()
            refuse_impossible(chain, execution)
        ledger = Ledger.claim(output, table, chain.schema, identity, resume=configuration.resume, properties=properties)
        plans = load_or_extend_plans(
            output, inventory, source.make_work_items, execution.rows_per_shard, execution.mib_per_shard * 2**20
        )
    if remaining := ledger.remaining(plans):
        cluster.connect()
        refuse_impossible(chain, execution)
        shards = execute(ledger, remaining, chain, execution)
        done = f"run {ledger.run} committed {shards} shards"
    else:
        done = f"run {ledger.run} is already complete"
    totals = ledger.totals()
    logger.info("%s: %s: %s", output, done, totals)
    return exit_code(totals, configuration)


def exit_code(totals: Totals, configuration: JobConfiguration) -> int:
    """Return 3 if more rows were rejected than the configuration allows, else 0."""
    limit = configuration.max_rejected
    if limit is None or totals.rejected <= limit:
        return DONE
    logger.error("%d rows were rejected, but --max-rejected allows %d; see the rejected table", totals.rejected, limit)
    return TOO_MANY_REJECTED
