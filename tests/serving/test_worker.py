"""The thread that runs the network: batches, order, giving way, leaving, stopping."""

import asyncio
import threading

import numpy as np
import pytest

from unispeech.serving.worker import AbandonedError, Task, Worker


class Calls:
    """Tasks that note when they run; the first ones hold the thread until told."""

    def __init__(self) -> None:
        self.batches, self.order, self.hold = [], [], threading.Event()

    def run_batch(self, waveforms):
        self.batches.append([len(waveform) for waveform in waveforms])
        return [len(waveform) * 10 for waveform in waveforms]

    def blocker(self):
        def run(give_way):
            self.hold.wait(10)
            return "done"

        return Task(run)

    def short(self, num_samples):
        def run(give_way):
            self.order.append(num_samples)
            return num_samples * 10

        return Task(run, run_batch=self.run_batch, waveform=np.zeros(num_samples, np.float32))


@pytest.fixture
def calls():
    return Calls()


def run(calls, scenario, *, batch_seconds=10.0, load=lambda: "model"):
    """Run a scenario against a worker and stop it."""
    worker = Worker(load, batch_seconds=batch_seconds)
    worker.start()

    async def whole():
        while worker.state == "starting":
            await asyncio.sleep(0.01)
        return await scenario(worker)

    try:
        return asyncio.run(whole())
    finally:
        calls.hold.set()
        worker.stop()


async def queued(worker, tasks):
    """Hand tasks in one after another while the thread is busy."""
    waiting = []
    for task in tasks:
        waiting.append(asyncio.ensure_future(worker.do(task)))
        await asyncio.sleep(0)
    return waiting


async def held(worker, calls):
    """Keep the thread busy."""
    blocked = asyncio.ensure_future(worker.do(calls.blocker()))
    while worker.num_waiting or not blocked:
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.02)
    return blocked


def test_what_waits_together_runs_together(calls):
    async def scenario(worker):
        blocked = await held(worker, calls)
        waiting = await queued(worker, [calls.short(n) for n in (100, 300, 200)])
        calls.hold.set()
        return await asyncio.gather(blocked, *waiting)

    assert run(calls, scenario) == ["done", 1000, 3000, 2000]
    assert calls.batches == [[100, 200, 300]]


def test_batches_keep_within_their_seconds_and_take_the_nearest_lengths(calls):
    async def scenario(worker):
        await held(worker, calls)
        second = 16_000
        tasks = [calls.short(n * second) for n in (1, 5, 1, 2, 5)]
        waiting = await queued(worker, tasks)
        calls.hold.set()
        await asyncio.gather(*waiting)
        return [task.num_together for task in tasks]

    assert run(calls, scenario, batch_seconds=6.0) == [3, 1, 3, 3, 1]
    assert [[n // 16_000 for n in batch] for batch in calls.batches] == [[1, 1, 2], [5], [5]]


def test_without_batches_each_runs_alone(calls):
    async def scenario(worker):
        await held(worker, calls)
        waiting = await queued(worker, [calls.short(n) for n in (100, 100)])
        calls.hold.set()
        return await asyncio.gather(*waiting)

    run(calls, scenario, batch_seconds=0.0)
    assert calls.batches == [[100], [100]]


def test_a_batch_that_fails_is_run_one_by_one(calls):
    def fail(waveforms):
        raise RuntimeError("out of memory")

    async def scenario(worker):
        await held(worker, calls)
        tasks = [calls.short(n) for n in (100, 200)]
        for task in tasks:
            task.run_batch = calls.fail
        waiting = await queued(worker, tasks)
        calls.hold.set()
        return await asyncio.gather(*waiting)

    calls.fail = fail
    assert run(calls, scenario) == [1000, 2000]
    assert calls.order == [100, 200]


def test_a_task_that_fails_alone_fails_and_the_thread_goes_on(calls):
    def fail(waveforms):
        raise KeyboardInterrupt

    async def scenario(worker):
        task = calls.short(100)
        task.run_batch = fail
        with pytest.raises(KeyboardInterrupt):
            await worker.do(task)
        return await worker.do(calls.short(7))

    assert run(calls, scenario) == 70


def test_a_long_task_gives_way(calls):
    async def scenario(worker):
        def long(give_way):
            calls.hold.wait(10)
            give_way()
            calls.order.append("long")

        waiting = [asyncio.ensure_future(worker.do(Task(long, is_long=True)))]
        await asyncio.sleep(0.05)
        other_long = Task(lambda give_way: calls.order.append("next long"), is_long=True)
        stream = Task(lambda give_way: calls.order.append("stream"))
        waiting += await queued(worker, [other_long, stream])
        calls.hold.set()
        await asyncio.gather(*waiting)

    run(calls, scenario)
    assert calls.order == ["stream", "long", "next long"]


def test_who_leaves_before_his_turn_is_never_run(calls):
    async def scenario(worker):
        await held(worker, calls)
        [leaving, staying] = await queued(worker, [calls.short(1), calls.short(2)])
        leaving.cancel()
        await asyncio.sleep(0)
        assert worker.num_waiting == 1
        calls.hold.set()
        return await staying

    assert run(calls, scenario) == 20
    assert calls.batches == [[2]]


def test_who_leaves_in_the_middle_of_a_long_task_ends_it(calls):
    ended = threading.Event()

    async def scenario(worker):
        def long(give_way):
            calls.hold.wait(10)
            try:
                give_way()
            except AbandonedError as error:
                ended.set()
                assert str(error) == "nobody waits any more."
                raise

        waiting = asyncio.ensure_future(worker.do(Task(long, is_long=True)))
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.sleep(0)
        calls.hold.set()
        return await worker.do(calls.short(1))

    assert run(calls, scenario) == 10
    assert ended.is_set()


def test_stopping_gives_up_what_waits(calls):
    async def scenario(worker):
        blocked = await held(worker, calls)
        [waiting] = await queued(worker, [calls.short(1)])
        stopping = asyncio.get_running_loop().run_in_executor(None, worker.stop)
        with pytest.raises(AbandonedError, match="the server stops"):
            await waiting
        calls.hold.set()
        await stopping
        assert worker.state == "stopping"
        return await blocked

    assert run(calls, scenario) == "done"


def test_a_model_that_cannot_be_loaded_is_told():
    def load():
        raise ValueError("no such model.")

    worker = Worker(load, batch_seconds=1.0)
    worker.start()
    with pytest.raises(ValueError, match="no such model"):
        worker.loaded.result(timeout=10)
    assert worker.state == "starting"
    worker.stop()
