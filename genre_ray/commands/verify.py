"""`verify`: recount and re-checksum tables, bundles and runs; with `--gc`, removal of what no version names.

Exit codes: 0 everything is sound; 1 something is damaged, and each damage is a line of the log; 2 configuration, or
nothing to verify is there.
"""

import json
import logging

from pydantic import Field, model_validator

from genre_ray.config import JobConfiguration
from genre_ray.errors import InputError
from genre_ray.runs.verify import Finding, old_orphans, verify
from genre_ray.storage import objects

logger = logging.getLogger(__name__)

SOUND, DAMAGED = 0, 1


class VerifyConfiguration(JobConfiguration):
    """Check tables, bundles and runs; log a line of JSON for each, and a line for every damage."""

    inputs: tuple[str, ...] = Field(min_length=1, description="tables, bundles, outputs or folders of them")
    output: str = Field("", description="file that receives the findings as JSON Lines; the log alone when not given")
    limit: int | None = Field(None, ge=1, description="read only the first N parts of each table")
    gc: bool = Field(False, description="list the orphans that can go: parts that no version of a table names")
    delete: bool = Field(False, description="with --gc: remove them")
    orphan_age_days: float = Field(7.0, ge=0, description="younger orphans stay: a live run may still commit them")

    @model_validator(mode="after")
    def _delete_what_is_listed(self) -> "VerifyConfiguration":
        if self.delete and not self.gc:
            raise ValueError("--delete needs --gc, which says what would be removed")
        return self


def run(configuration: VerifyConfiguration) -> int:
    """Carry the job out; return its exit code."""
    findings: list[Finding] = []
    for uri in configuration.inputs:
        found = list(verify(uri, configuration.limit))
        if not found:
            raise InputError(f"{uri}: expected a table, a bundle or a run, found none; correct the address")
        findings += found
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


def _collect(finding: Finding, configuration: VerifyConfiguration) -> None:
    old = old_orphans(finding, configuration.orphan_age_days)
    removing = configuration.delete and not configuration.dry_run
    for uri in old:
        logger.info("%s: %s", "removing" if removing else "would remove", uri)
    if removing:
        objects.delete_files(old)
    young = len(finding.orphans) - len(old)
    if young:
        logger.info("%s: %d orphans are younger than %g days", finding.uri, young, configuration.orphan_age_days)
