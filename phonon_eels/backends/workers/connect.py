"""Find or start the workers: an existing scheduler, processes of this machine, or jobs of SLURM."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any, Literal

from phonon_eels.backends.workers.backend import WorkersBackend
from phonon_eels.errors import DeviceError

log = logging.getLogger(__name__)

CONNECT_S = 15
_JOB_MEMORY = "4GB"
_QUEUE_S = 3600


@contextlib.contextmanager
def workers_backend(
    *,
    scheduler: str | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    worker_memory: str | None = None,
    threads: int | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
) -> Iterator[WorkersBackend]:
    """Give a backend on many workers, and end what was started for it.

    Parameters
    ----------
    scheduler
        Address of a running dask.distributed scheduler, as ``tcp://host:8786``.
    workers
        Number of workers to start, on this machine or as jobs.
    cluster
        "slurm": as jobs, through dask-jobqueue; queue, account and the like stand in its own configuration file.
    worker_memory
        Memory of a worker, as "4GB"; a worker that would take more is ended and its block done again.
    threads
        Threads of a worker; default 1.
    device
        "cuda": a GPU for each worker. Those of this machine are dealt out in turn, a job of SLURM asks for one; who starts
        workers himself gives each its own with CUDA_VISIBLE_DEVICES.

    Raises
    ------
    DeviceError
        If the scheduler cannot be reached within half a minute, or no worker comes.
    """
    try:
        import distributed
    except ImportError as problem:
        raise DeviceError("many workers need dask.distributed; install phonon-eels[cluster]") from problem
    gpus = _gpus_here() if device == "cuda" and scheduler is None and cluster is None else 0
    with contextlib.ExitStack() as stack:
        if scheduler is not None:
            place: Any = scheduler
        elif cluster == "slurm":
            place = stack.enter_context(
                _slurm_cluster(workers or 2, worker_memory or _JOB_MEMORY, threads or 1, device)
            )
        else:
            place = stack.enter_context(
                distributed.LocalCluster(
                    n_workers=workers or 1,
                    threads_per_worker=threads or 1,
                    memory_limit=worker_memory or "auto",
                    dashboard_address=None,
                    silence_logs=logging.ERROR,
                )
            )
        try:
            client = stack.enter_context(distributed.Client(place, timeout=CONNECT_S, set_as_default=False))
            client.wait_for_workers(1, timeout=_QUEUE_S if cluster else CONNECT_S)
        except (OSError, ValueError) as problem:  # TimeoutError is an OSError
            raise DeviceError(_not_reached(scheduler, problem)) from problem
        if gpus:
            from phonon_eels.backends.workers.one_gpu import one_gpu_each

            client.register_plugin(one_gpu_each(gpus))
            if (workers or 1) > gpus:
                log.warning(
                    "%d workers share %d CUDA devices: what one keeps of a device's memory, the other has not; "
                    "--workers %d gives each its own", workers, gpus, gpus,
                )  # fmt: skip
        backend = WorkersBackend(client, device)
        log.info("workers: %d threads in all, blocks of %.0f MB", backend.threads, backend.block_bytes / 1e6)
        yield backend


def _gpus_here() -> int:
    from phonon_eels.backends.cuda.find import n_devices, why_no_cuda

    reason = why_no_cuda()
    if reason is not None:
        raise DeviceError(f"device = cuda: {reason}; use --device cpu or auto")
    return n_devices()


def _slurm_cluster(workers: int, memory: str, threads: int, device: str) -> Any:
    from dask_jobqueue import SLURMCluster

    gpu = ["--gres=gpu:1"] if device == "cuda" else []
    cluster = SLURMCluster(
        cores=threads,
        processes=1,
        memory=memory,
        scheduler_options={"dashboard_address": ":0"},
        job_extra_directives=gpu,
    )
    cluster.scale(jobs=workers)
    return cluster


def _not_reached(scheduler: str | None, problem: Exception) -> str:
    if scheduler is None:
        return f"no worker came up ({type(problem).__name__}: {problem}); see the logs of the workers or their jobs"
    return (
        f"--scheduler {scheduler}: no dask scheduler with a worker answers there within {CONNECT_S} s "
        f"({type(problem).__name__}); start one with `dask scheduler` and `dask worker {scheduler}`, or use --workers N"
    )
