"""A job in SLURM's queue, put there by submitit: whether and how it is queued again when it has to stop."""

import os
import re
import signal
import subprocess


def under_submitit() -> bool:
    """Whether SLURM's queue runs this, by way of submitit."""
    return os.environ.get("SUBMITIT_EXECUTOR") == "slurm"


def requeue_signal() -> signal.Signals:
    """By which submitit is told that a job is to be queued again."""
    return signal.Signals[f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"]


def queue_again() -> None:
    """Lets submitit queue the job again, unless a person has cancelled it; ends the process if so.

    SLURM takes a job that ends after SIGTERM for a completed one.
    """
    if not _was_cancelled(os.environ.get("SLURM_JOB_ID", "")):
        signal.raise_signal(requeue_signal())


def _was_cancelled(job: str) -> bool:
    """A preempted job still runs, or has a time of preemption; one that was cancelled has neither."""
    try:
        asked = subprocess.run(["scontrol", "show", "job", job, "-o"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):  # nobody to ask: losing a place in the queue is the worse mistake
        return False
    fields = dict(re.findall(r"(JobState|PreemptTime)=(\S+)", asked.stdout))
    return fields.get("JobState", "RUNNING") != "RUNNING" and fields.get("PreemptTime", "None") == "None"
