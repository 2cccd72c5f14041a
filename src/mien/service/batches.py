"""Images of many requests through one predictor: found in a few threads, predicted together in batches."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

from mien.data import images
from mien.prediction.predict import Cut, Predictor, Row
from mien.service.limits import Limits
from mien.service.uploads import Upload

BATCH = 64
"""Faces that the network looks at together, at most."""


class Answer(NamedTuple):
    """The rows of one image, and how many faces beyond the limit were left out."""

    rows: list[Row]
    left_out: int


class Batches:
    """Answers for images; to be used in one event loop, between `start` and `stop`.

    As many images are decoded at once as the predictor has threads, and the others wait as the bytes they came as. The
    network takes all faces that have been found since it last answered, so batches grow with the load.
    """

    def __init__(self, predictor: Predictor, limits: Limits) -> None:
        self._predictor = predictor
        self._limits = limits
        self._finders = ThreadPoolExecutor(predictor.threads, "find")
        self._network = ThreadPoolExecutor(1, "network")
        self._ready: asyncio.Queue[tuple[list[Cut], asyncio.Future[list[Row]]]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Loads the detector, so that the first request need not wait for it, and begins."""
        import numpy as np

        blank = np.zeros((64, 64, 3), np.uint8)
        await asyncio.get_running_loop().run_in_executor(self._finders, self._predictor.cuts, blank)
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Ends; every request has been answered before."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self._finders.shutdown(wait=False, cancel_futures=True)
        self._network.shutdown(wait=False, cancel_futures=True)

    async def predict(self, uploads: Sequence[Upload], crops: bool) -> list[Answer]:
        """The answers, in the order of the images; when cancelled, images that nobody has begun with are dropped."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._one(upload, crops)) for upload in uploads]
        return [task.result() for task in tasks]

    async def run(self, work: Any, *arguments: Any) -> Any:
        """Runs something else that asks the network, in its turn."""
        return await asyncio.get_running_loop().run_in_executor(self._network, work, *arguments)

    async def _one(self, upload: Upload, crops: bool) -> Answer:
        loop = asyncio.get_running_loop()
        cuts = await self.find_faces(upload, crops)
        kept = cuts[: self._limits.faces]
        answered: asyncio.Future[list[Row]] = loop.create_future()
        self._ready.put_nowait((kept, answered))
        return Answer(await answered, len(cuts) - len(kept))

    async def find_faces(self, upload: Upload, crops: bool) -> list[Cut]:
        """The faces of one image, or the one cut without pixels that says why there are none."""
        found = await asyncio.get_running_loop().run_in_executor(self._finders, self._find, upload, crops)
        return found or [Cut({"file": upload.name, "status": "no face"}, None)]

    def _find(self, upload: Upload, crops: bool) -> list[Cut]:
        try:
            width, height = images.dimensions(upload.content)
        except images.ImageError as error:
            return [Cut({"file": upload.name, "status": error.reason}, None)]
        if width * height > self._limits.image_pixels:
            return [Cut({"file": upload.name, "status": "too large"}, None)]
        return self._predictor.cuts(upload.content, upload.name, crops)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._ready.get()]
            while not self._ready.empty() and sum(len(cuts) for cuts, _ in batch) < BATCH:
                batch.append(self._ready.get_nowait())
            # Of requests that were given up in the meantime nobody waits for an answer.
            batch = [(cuts, answered) for cuts, answered in batch if not answered.done()]
            try:
                lists = await loop.run_in_executor(self._network, self._answer, [cuts for cuts, _ in batch])
            except Exception as error:  # whatever it is, those who wait must hear of it, and the next are served
                for _, answered in batch:
                    if not answered.done():
                        answered.set_exception(error)
                continue
            for (_, answered), rows in zip(batch, lists, strict=True):
                if not answered.done():
                    answered.set_result(rows)

    def _answer(self, lists: list[list[Cut]]) -> list[list[Row]]:
        rows = self._predictor.answers([cut for cuts in lists for cut in cuts])
        return [[next(rows) for _ in cuts] for cuts in lists]
