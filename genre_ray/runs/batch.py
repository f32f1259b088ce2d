"""A batch job from its configuration to its tables: claim, plan, execute, count."""

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
    """Write `output/<table>` and `output/rejected`, whole shards at a time, each once.

    Args:
        configuration: the job's.
        job: its name.
        table: the name of the data table.
        source: where rows come from.
        stages: what is done with them, in order.
        properties: what the data table's Delta properties state for its readers; they follow from the identity.
        sources: what the identity holds beside the settings: ids of bundles, versions of tables.

    Returns:
        The job's exit code: 0, or 3 when more rows were rejected than `max_rejected`.
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
            # Before the claim, so that a corrected setting needs no --resume.
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
