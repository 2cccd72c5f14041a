"""Batched prediction across requests: faces are detected in several threads and predicted together."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

from mien.base.errors import ModelFailure
from mien.data import images
from mien.prediction.predict import FaceCrop, Predictor, Row
from mien.service.limits import ServiceLimits
from mien.service.turns import Line, Turns
from mien.service.uploads import Upload

BATCH = 64
"""Maximum number of faces per network call."""


class ImageResult(NamedTuple):
    """The rows of one image, and the number of faces omitted above the limit."""

    rows: list[Row]
    left_out: int


class Batches:
    """Predicts for uploaded images; used in one event loop, between `start` and `stop`.

    As many images are decoded at once as the predictor has threads, of each request in turn; the others wait as encoded
    bytes. Each network call
    takes all faces detected since the last one, so that batches grow with the load.
    """

    def __init__(self, predictor: Predictor, limits: ServiceLimits) -> None:
        self._predictor = predictor
        self._limits = limits
        self._finders = Turns(predictor.threads)
        self._network = ThreadPoolExecutor(1, "network")
        self._ready: asyncio.Queue[tuple[list[FaceCrop], asyncio.Future[list[Row]]]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._running = asyncio.Lock()

    async def start(self) -> None:
        """Loads the detector, so that the first request does not wait for it, and starts the worker."""
        import numpy as np

        blank = np.zeros((64, 64, 3), np.uint8)
        await self._finders.run(self._finders.line(), self._predictor.crop_faces, blank)
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Stops the worker; all requests have been answered before."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self._finders.stop()
        self._network.shutdown(wait=False, cancel_futures=True)

    async def predict(self, uploads: Sequence[Upload], crops: bool) -> list[ImageResult]:
        """Returns the rows of each image in order; when cancelled, images that are still waiting are dropped."""
        line = self._finders.line()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._one(upload, crops, line)) for upload in uploads]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def run(self, work: Any, *arguments: Any) -> Any:
        """Runs another function that uses the network, in the network thread; one at a time, in turn with a batch."""
        async with self._running:
            return await asyncio.get_running_loop().run_in_executor(self._network, work, *arguments)

    async def _one(self, upload: Upload, crops: bool, line: Line) -> ImageResult:
        loop = asyncio.get_running_loop()
        face_crops = await self.find_faces(upload, crops, line)
        kept = face_crops[: self._limits.faces]
        result_future: asyncio.Future[list[Row]] = loop.create_future()
        self._ready.put_nowait((kept, result_future))
        return ImageResult(await result_future, len(face_crops) - len(kept))

    async def find_faces(self, upload: Upload, crops: bool, line: Line | None = None) -> list[FaceCrop]:
        """Returns the faces of one image, or one cut without pixels whose status is the reason.

        Args:
            upload: The image.
            crops: Whether it already is a face crop.
            line: The images of its request, which have one turn at a time; None: it is the only one.
        """
        found = await self._finders.run(line or self._finders.line(), self._find, upload, crops)
        return found or [FaceCrop({"file": upload.name, "status": "no face"}, None)]

    def _find(self, upload: Upload, crops: bool) -> list[FaceCrop]:
        try:
            pixels = images.pixel_count(upload.content)
        except images.ImageError as error:
            return [FaceCrop({"file": upload.name, "status": error.reason}, None)]
        if pixels > self._limits.image_pixels:
            return [FaceCrop({"file": upload.name, "status": "too large"}, None)]
        return self._predictor.crop_faces(upload.content, upload.name, crops)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._ready.get()]
            while not self._ready.empty() and sum(len(face_crops) for face_crops, _ in batch) < BATCH:
                batch.append(self._ready.get_nowait())
            # Cancelled requests need no prediction.
            batch = [(face_crops, result_future) for face_crops, result_future in batch if not result_future.done()]
            try:
                lists = await loop.run_in_executor(
                    self._network, self._predict_batch, [face_crops for face_crops, _ in batch]
                )
            except Exception as error:  # any error must reach the waiting requests, and the worker must continue
                for _, result_future in batch:
                    if not result_future.done():
                        result_future.set_exception(error)
                continue
            for (_, result_future), rows in zip(batch, lists, strict=True):
                if result_future.done():
                    continue
                if isinstance(rows, ModelFailure):
                    result_future.set_exception(rows)
                else:
                    result_future.set_result(rows)

    def _predict_batch(self, lists: list[list[FaceCrop]]) -> Sequence[list[Row] | ModelFailure]:
        """Returns the rows of each image, or why the model fails on it: the others of the batch are predicted."""
        try:
            rows = self._predictor.predict_crops([crop for face_crops in lists for crop in face_crops])
            return [[next(rows) for _ in face_crops] for face_crops in lists]
        except ModelFailure as failure:
            if len(lists) == 1:
                return [failure]
            return [found for face_crops in lists for found in self._predict_batch([face_crops])]
