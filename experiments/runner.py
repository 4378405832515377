"""Carrying steps out: several at a time, cached, stopped and taken up again.

Every step is a process (`carry_out` in jobs.py, or a verb of `unispeech`) with a directory of its own:

    done.json     the outcome and the seconds it took, over all pieces
    failed.json   why there is none
    spent.json    seconds so far, of a step that was stopped
    output.txt    what the process printed
"""

import fcntl
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from experiments.corpora import Sources
from experiments.steps import Step

State = Literal["done", "failed", "begun", "waiting"]
Command = Callable[[Step, Path, dict[str, Any], Sources], list[str]]
"""Step, its directory, its resolved inputs, sources -> arguments of Python."""

TRAININGS = ("pretrain", "finetune")
"""The kinds of steps that are runs of `unispeech`."""
GRACE = 60.0
"""Seconds in which a process that is told to stop must have saved."""
INTERRUPTED = 130
"""Status of a process that saved and left."""


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """Where steps are carried out."""

    work: Path
    """Folder of the outcomes."""
    sources: Sources
    """What corpora are made of."""

    def directory(self, step: Step) -> Path:
        """Where a step leaves its outcome.

        Args:
            step: The step.
        """
        return self.work / step.label

    def state(self, step: Step) -> State:
        """How far a step is.

        Args:
            step: The step.
        """
        directory = self.directory(step)
        for name, state in (("done", "done"), ("failed", "failed")):
            if (directory / f"{name}.json").exists():
                return state  # type: ignore[return-value]
        return "begun" if directory.exists() else "waiting"

    def outcome(self, step: Step) -> dict[str, Any]:
        """What a finished or failed step left.

        Args:
            step: The step.
        """
        name = "done" if self.state(step) == "done" else "failed"
        content: dict[str, Any] = read_json(self.directory(step) / f"{name}.json")
        return content


@dataclass
class _Job:
    """A step that is being carried out."""

    step: Step
    process: subprocess.Popen[bytes]
    started: float = field(default_factory=time.monotonic)
    is_told: bool = False
    """Whether it was told to stop."""
    status: int | None = None
    """How it ended; negative for a signal, None before its end."""
    cpu_seconds: float = 0.0
    """What it used of processors, with all processes that it waited for."""

    def has_ended(self) -> bool:
        """Whether it has; if so, how and at which cost is noted."""
        if self.status is None:
            pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
            if pid:
                self.status = self.process.returncode = os.waitstatus_to_exitcode(status)
                self.cpu_seconds = usage.ru_utime + usage.ru_stime
        return self.status is not None


def run_steps(
    steps: Sequence[Step],
    workshop: Workshop,
    *,
    num_jobs: int,
    seconds: float | None = None,
    on_done: Callable[[Step], None] = lambda step: None,
    tell: Callable[[str], None] = print,
    command: Command | None = None,
) -> bool:
    """Carry out what is not done, in order, as far as the time goes.

    A step that fails is written down, what needs it is left out, the rest goes on.

    Args:
        steps: The plan, every step behind what it needs.
        workshop: Where.
        num_jobs: Steps at a time.
        seconds: Time after which running steps are told to save and stop; None takes all there is.
        on_done: Is given each step that was done or has failed.
        tell: Is given lines on what happens.
        command: How a step is carried out; None: `command_of`.

    Returns:
        Whether all is done that can be.

    Raises:
        ValueError: If steps are being carried out in the same workshop already.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    with _locked(workshop.work) as lock:
        crew = _Crew(workshop, num_jobs, on_done, tell, command or command_of, lock)
        try:
            while True:
                crew.collect()
                if deadline is not None and time.monotonic() >= deadline:
                    crew.stop()
                    return _next(steps, workshop, []) is None
                step = _next(steps, workshop, [job.step for job in crew.jobs])
                if step is not None and len(crew.jobs) < num_jobs:
                    crew.start(step)
                elif not crew.jobs:
                    return True
                else:
                    time.sleep(0.2)
        except BaseException:
            crew.stop()
            raise


def reopen(step: Step, workshop: Workshop) -> None:
    """Have a failed step carried out once more; a training goes on from its last checkpoint.

    Args:
        step: The step.
        workshop: Where it failed.
    """
    directory = workshop.directory(step)
    if step.kind not in TRAININGS:
        shutil.rmtree(directory)
        return
    failed = read_json(directory / "failed.json")
    write_json(directory / "spent.json", {name: failed[name] for name in ("seconds", "cpu_seconds")})
    (directory / "failed.json").unlink()


@contextmanager
def _locked(work: Path) -> Iterator[int]:
    """Hold a folder for ourselves and for our processes, should they outlive us.

    Yields:
        The file descriptor that holds it.
    """
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{work}: must not be in use, but steps are being carried out there; wait for them."
            ) from None
        yield file.fileno()


def _next(steps: Sequence[Step], workshop: Workshop, running: Sequence[Step]) -> Step | None:
    """The first step that can begin."""
    labels = {step.label for step in running}
    for step in steps:
        is_open = workshop.state(step) in {"waiting", "begun"} and step.label not in labels
        if is_open and all(workshop.state(parent) == "done" for parent in step.parents):
            return step
    return None


class _Crew:
    """The processes that carry out steps.

    Args:
        workshop: Where.
        num_jobs: Steps at a time.
        on_done: Is given each step that was done or has failed.
        tell: Is given lines on what happens.
        command: How a step is carried out.
        lock: File descriptor that the processes keep open.
    """

    def __init__(
        self,
        workshop: Workshop,
        num_jobs: int,
        on_done: Callable[[Step], None],
        tell: Callable[[str], None],
        command: Command,
        lock: int,
    ) -> None:
        self.jobs: list[_Job] = []
        self._workshop, self._on_done, self._tell = workshop, on_done, tell
        self._command, self._lock = command, lock
        self._threads = max((os.cpu_count() or 1) // num_jobs, 1)

    def start(self, step: Step) -> None:
        """Begin a step, or go on with it."""
        directory = self._workshop.directory(step).absolute()
        directory.mkdir(parents=True, exist_ok=True)
        inputs = step.resolved(self._workshop.work.absolute())
        write_json(directory / "step.json", {"kind": step.kind, "name": step.name, "inputs": inputs})
        arguments = self._command(step, directory, inputs, self._workshop.sources)
        with (directory / "output.txt").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={"OMP_NUM_THREADS": str(self._threads)} | os.environ,
                start_new_session=True,  # so that Ctrl-C comes to us alone, who pass it on
                pass_fds=(self._lock,),
            )
        self.jobs.append(_Job(step=step, process=process))
        self._tell(f"{step.label}: begun")

    def collect(self) -> None:
        """Write down what has ended."""
        for job in [job for job in self.jobs if job.has_ended()]:
            self.jobs.remove(job)
            self._finish(job)

    def stop(self) -> None:
        """Let running steps save and leave; those that are done in that moment are done."""
        for job in self.jobs:
            job.is_told = not job.has_ended()
        # Amid its imports a process may lose a signal; what was saved is safe from the last one.
        for number, seconds in (
            (signal.SIGINT, GRACE),
            (signal.SIGINT, GRACE / 4),
            (signal.SIGKILL, math.inf),
        ):
            for job in self.jobs:
                if not job.has_ended():
                    os.killpg(job.process.pid, number)
            deadline = time.monotonic() + seconds
            while not all(job.has_ended() for job in self.jobs) and time.monotonic() < deadline:
                time.sleep(0.05)
        self.collect()

    def _finish(self, job: _Job) -> None:
        """Write down how a step ended."""
        step, status = job.step, job.status
        directory = self._workshop.directory(step)
        before = read_json(directory / "spent.json") if (directory / "spent.json").exists() else {}
        seconds = before.get("seconds", 0.0) + time.monotonic() - job.started
        cpu_seconds = before.get("cpu_seconds", 0.0) + job.cpu_seconds
        spent = {"seconds": round(seconds, 2), "cpu_seconds": round(cpu_seconds, 2)}
        kept = {"name": step.name, "key": step.key, **spent}
        if status != 0 and (job.is_told or status == INTERRUPTED):
            write_json(directory / "spent.json", spent)
            self._tell(f"{step.label}: stopped, to be gone on with")
            return
        message = None if status == 0 else _last_line(directory / "output.txt")
        if message is None:
            try:
                write_json(directory / "done.json", kept | {"result": _result(step, directory)})
            except (OSError, ValueError) as error:
                message = f"no outcome: {error}"
        if message is not None:
            write_json(directory / "failed.json", kept | {"message": message})
        self._tell(f"{step.label}: " + (f"failed: {message}" if message else f"done in {seconds:.0f} s"))
        self._on_done(step)


def command_of(step: Step, directory: Path, inputs: dict[str, Any], sources: Sources) -> list[str]:
    """How a step is carried out: a verb of `unispeech`, or `jobs.py`.

    Args:
        step: The step.
        directory: Its directory; a new training gets its recipe there.
        inputs: Its resolved inputs.
        sources: What corpora are made of.

    Returns:
        Arguments of Python.
    """
    if step.kind not in TRAININGS:
        places = [directory, sources.texts.absolute(), sources.manifest.absolute()]
        return ["-m", "experiments.jobs", *map(str, places)]
    run = directory / "run"
    if (run / "recipe.yaml").exists():
        return ["-m", "unispeech", step.kind, "-o", str(run), "--resume"]
    recipe = directory / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(inputs["recipe"], sort_keys=False), encoding="utf-8")
    return ["-m", "unispeech", step.kind, str(recipe), "-o", str(run)]


def _result(step: Step, directory: Path) -> dict[str, Any]:
    """What a step found out."""
    if step.kind in {"corpus", "score"}:
        result: dict[str, Any] = read_json(directory / "result.json")
        return result
    from experiments.tidying import summarise_run, tidy_run

    summary = summarise_run(directory / "run")
    tidy_run(directory / "run")
    return summary


def _last_line(path: Path) -> str:
    """The last thing that a process said."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "nothing was said")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
    """
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, content: object) -> None:
    """Write a JSON file beside its place and rename it.

    Args:
        path: The file.
        content: Plain values.
    """
    beside = path.with_name(path.name + ".new")
    beside.write_text(json.dumps(content, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(beside, path)
