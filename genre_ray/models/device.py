"""Choose the device of a process: the GPU that it has reserved, or the CPU."""

import logging
import os
import sys

import torch

logger = logging.getLogger(__name__)


def reserved_device() -> torch.device:
    """Return the GPU that this Ray worker has reserved, or the CPU if it has none or is not a Ray worker.

    A visible GPU is not necessarily reserved, because Ray (2.60) does not hide GPUs from workers that reserved none.
    """
    ray = sys.modules.get("ray")
    # A process that never imported Ray is not a Ray worker, and a driver reserves no GPU.
    reserved = ray.get_gpu_ids() if ray is not None and ray.is_initialized() else []
    if not reserved:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        logger.warning("GPU %s is reserved, but torch cannot use it; using the CPU instead", reserved[0])
        return torch.device("cpu")
    return torch.device("cuda", _index(str(reserved[0])))


def _index(gpu: str) -> int:
    """Return torch's index of a GPU. torch numbers visible GPUs from 0, and Ray makes only reserved GPUs visible."""
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    if gpu in visible:
        return visible.index(gpu)
    return int(gpu) if not visible and gpu.isdecimal() else 0
