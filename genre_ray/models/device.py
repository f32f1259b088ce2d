"""Where a process computes: on the GPU that it has reserved, never on one that it merely sees."""

import logging
import os
import sys

import torch

logger = logging.getLogger(__name__)


def reserved_device() -> torch.device:
    """The GPU that this Ray worker has reserved; the CPU where it has none, and outside of Ray.

    Ray (2.60) does not hide a node's GPUs from workers that have reserved none, so that seeing one says nothing.
    """
    ray = sys.modules.get("ray")
    # A process that never imported Ray is not one of its workers. A driver reserves nothing either.
    reserved = ray.get_gpu_ids() if ray is not None and ray.is_initialized() else []
    if not reserved:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        logger.warning("GPU %s is reserved, but torch finds no usable one; computing on the CPU", reserved[0])
        return torch.device("cpu")
    return torch.device("cuda", _index(str(reserved[0])))


def _index(gpu: str) -> int:
    """Where torch finds a GPU: it counts the visible ones from 0, and Ray makes the reserved ones visible."""
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    if gpu in visible:
        return visible.index(gpu)
    return int(gpu) if not visible and gpu.isdecimal() else 0
