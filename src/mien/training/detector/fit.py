"""The training loop: resumes at its last checkpoint, with the scenes that would have followed."""

import csv
import math
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import nn

from mien.training.detector.cache import Cache
from mien.training.detector.network import FaceNet
from mien.training.detector.scenes import Batch, SceneMaker
from mien.training.detector.settings import Settings
from mien.training.detector.start import load_exported
from mien.training.detector.targets import losses
from mien.training.detector.validate import validate

AHEAD = 6
"""So many batches at most are made ahead."""

_maker: SceneMaker | None = None  # of a process


def _make(settings: Settings, number: int) -> Batch:
    global _maker
    if _maker is None:
        _maker = SceneMaker(Cache(settings.out / "cache", "train"), settings.scenes, settings.seed)
    return _maker.batch(number)


def _begin_helper(parent: int) -> None:
    """In the second process: lets others go first, and ends when the training does, however that ends."""
    os.setsid()  # Linux weighs sessions first, and the niceness within each
    os.nice(10)
    cv2.setNumThreads(1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(2)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def _batches(settings: Settings, first: int) -> Iterator[Batch]:
    """The batches in their order: made ahead by a second process, and here where that one is not quick enough."""
    cv2.setNumThreads(1)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, _begin_helper, (os.getpid(),)) as pool:
        ahead: dict[int, Future[Batch]] = {}
        submitted = first
        for number in range(first, settings.steps):
            made = ahead.pop(number, None)
            while len(ahead) < AHEAD and submitted < settings.steps:
                submitted = max(submitted, number + 1) + 1
                ahead[submitted] = pool.submit(_make, settings, submitted)
            if made is not None and made.done():
                yield made.result()
            else:
                if made is not None:
                    made.cancel()
                yield _make(settings, number)
        pool.shutdown(cancel_futures=True)


def train(settings: Settings) -> Path:
    """Trains, or goes on training; returns the file of the last checkpoint."""
    torch.manual_seed(settings.seed)
    network = FaceNet().to(memory_format=torch.channels_last)
    average = FaceNet().to(memory_format=torch.channels_last)
    average.load_state_dict(network.state_dict())
    decayed = [weight for weight in network.parameters() if weight.ndim > 1]
    others = [weight for weight in network.parameters() if weight.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate)
    file = settings.out / "checkpoint.pt"
    if settings.start is not None and not file.exists():
        images = torch.from_numpy(_make(settings, 0).pixels).permute(0, 3, 1, 2).float()
        for one in (network, average):
            load_exported(one, settings.start, images)
    step = _restored(file, network, average, optimizer)
    began, first = time.monotonic(), step
    for batch in _batches(settings, step):
        for group in optimizer.param_groups:
            group["lr"] = rate(settings, step)
        told = _learn(network, optimizer, batch)
        step += 1
        _follow(average, network, min(settings.average, step / (step + 20)))
        if step % 20 == 0:
            seconds = (time.monotonic() - began) / (step - first)
            _note(settings.out / "log.csv", {"step": step, "seconds a step": round(seconds, 3), **told})
            print(f"step {step:,} of {settings.steps:,}, {seconds:.2f} s each: {told}", flush=True)
        if step % settings.validate_every == 0 or step == settings.steps:
            recall = validate(average, settings)
            _note(settings.out / "validation.csv", {"step": step, **recall})
            print(f"step {step:,}: {recall}", flush=True)
        if step % settings.save_every == 0 or step == settings.steps:
            _save(file, step, network, average, optimizer)
    return file


def _learn(network: FaceNet, optimizer: torch.optim.Optimizer, batch: Batch) -> dict[str, float]:
    network.train()
    images = torch.from_numpy(batch.pixels).permute(0, 3, 1, 2).float()  # a view in channels_last order
    found = losses(network(images), batch.faces, batch.ignored)
    optimizer.zero_grad()
    found.total.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 10.0)
    optimizer.step()
    return {name: round(value.item(), 4) for name, value in found._asdict().items()}


def rate(settings: Settings, step: int) -> float:
    """The learning rate: linear warm-up, constant, and half a cosine down to a hundredth in the last steps.

    The constant part does not depend on the number of steps, so that a run can be made longer before its decay.
    """
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    decay = settings.decay * settings.steps
    done = max(0.0, (step - settings.steps + decay) / decay)
    return settings.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    for mean, value in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


def _save(file: Path, step: int, network: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    part = file.with_suffix(".part")
    torch.save(
        {
            "step": step,
            "network": network.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
        },
        part,
    )
    part.replace(file)


def _restored(file: Path, network: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    if not file.exists():
        return 0
    state: dict[str, Any] = torch.load(file, weights_only=True)
    network.load_state_dict(state["network"])
    average.load_state_dict(state["average"])
    optimizer.load_state_dict(state["optimizer"])
    step: int = state["step"]
    print(f"going on from step {step:,}", flush=True)
    return step


def _note(file: Path, row: dict[str, float]) -> None:
    new = not file.exists()
    with file.open("a", newline="") as out:
        writer = csv.DictWriter(out, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)
