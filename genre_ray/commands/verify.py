"""The job `verify`: count the rows and recompute the checksums of tables, bundles and runs.

With `--gc` it lists orphans: part files that no version of a table refers to. `--gc --delete` removes them. With
`--compact` it merges the small parts of undamaged tables and verifies the result.

Exit codes: 0 nothing is damaged; 1 something is damaged, and the log has a line for each damage; 2 the configuration is
invalid, or an input contains nothing to verify.
"""

import json
import logging
from collections.abc import Sequence

from pydantic import Field, model_validator

from genre_ray.bundles.verify import verify_bundles
from genre_ray.config import JobConfiguration
from genre_ray.errors import InputError
from genre_ray.runs.compact import compact, parts_to_merge, why_not
from genre_ray.runs.verify import Finding, old_orphans, verify
from genre_ray.storage import objects, tables

logger = logging.getLogger(__name__)

SOUND, DAMAGED = 0, 1


class VerifyConfiguration(JobConfiguration):
    """Check tables, bundles and runs. Log one line of JSON for each, and one line for each damage."""

    inputs: tuple[str, ...] = Field(min_length=1, description="tables, bundles, outputs of jobs, or folders of them")
    output: str = Field("", description="file to write the findings to as JSON Lines; default: only log them")
    limit: int | None = Field(None, ge=1, description="read only the first N parts of each table")
    compact: bool = Field(False, description="merge the small parts of undamaged tables, then verify them again")
    gc: bool = Field(False, description="list orphans: part files that no version of a table refers to")
    delete: bool = Field(False, description="with --gc: delete the orphans")
    orphan_age_days: float = Field(
        7.0, ge=0, description="keep orphans younger than this, since a running job may still commit them"
    )

    @model_validator(mode="after")
    def _delete_what_is_listed(self) -> "VerifyConfiguration":
        if self.delete and not self.gc:
            raise ValueError("--delete needs --gc; run with --gc alone first to see what would be deleted")
        return self

    @model_validator(mode="after")
    def _compact_what_was_read(self) -> "VerifyConfiguration":
        if self.compact and self.limit is not None:
            raise ValueError("--compact cannot be combined with --limit, because it reads whole tables")
        return self


def run(configuration: VerifyConfiguration) -> int:
    """Run the job and return its exit code."""
    findings: list[Finding] = []
    for uri in configuration.inputs:
        found = [*verify(uri, configuration.limit), *verify_bundles(uri)]
        if not found:
            raise InputError(f"{uri}: no table, bundle or run found there; correct the path")
        findings += found
    if configuration.compact:
        findings = _compact(findings, configuration)
    for finding in findings:
        logger.info("%s", json.dumps(finding.summary(), ensure_ascii=False))
        for damage in finding.damage:
            logger.error("damaged: %s", damage)
        if configuration.gc:
            _collect(finding, configuration)
    if configuration.output:
        lines = [json.dumps({**f.summary(), "damage": f.damage}, ensure_ascii=False) + "\n" for f in findings]
        objects.write_bytes(configuration.output, "".join(lines).encode())
    return DAMAGED if any(finding.damage for finding in findings) else SOUND


def _compact(findings: Sequence[Finding], configuration: VerifyConfiguration) -> list[Finding]:
    """Compact undamaged tables of undamaged runs, verify them again, and return the updated findings."""
    changed = []
    for finding in findings:
        if finding.kind == "table":
            runs = [run for run in findings if run.kind == "run" and finding.uri.startswith(f"{run.uri.rstrip('/')}/")]
            if finding.damage or any(run.is_broken for run in runs):
                logger.warning("%s: not compacted, because it is damaged", finding.uri)
            elif _compact_table(finding.uri, configuration):
                changed += [run.uri for run in runs] or [finding.uri]
    renewed = {finding.uri: finding for uri in dict.fromkeys(changed) for finding in verify(uri)}
    return [renewed.get(finding.uri, finding) for finding in findings]


def _compact_table(uri: str, configuration: VerifyConfiguration) -> bool:
    """Compact a table and return whether it may have changed. A dry run only logs how many parts would be merged."""
    table = tables.open_table(uri)
    reason = why_not(table)
    if reason is not None:
        logger.info("%s: not compacted: %s", uri, reason)
    elif configuration.dry_run:
        logger.info("%s: would merge up to %d parts", uri, parts_to_merge(table))
    else:
        done = compact(uri)
        logger.info("%s: compacted %d parts into %d", uri, done.parts_before, done.parts_after)
        return True
    return False


def _collect(finding: Finding, configuration: VerifyConfiguration) -> None:
    old = old_orphans(finding, configuration.orphan_age_days)
    removing = configuration.delete and not configuration.dry_run
    for uri in old:
        logger.info("%s: %s", "deleting" if removing else "would delete", uri)
    if removing:
        objects.delete_files(old)
    young = len(finding.orphans) - len(old)
    if young:
        logger.info("%s: kept %d orphans younger than %g days", finding.uri, young, configuration.orphan_age_days)
