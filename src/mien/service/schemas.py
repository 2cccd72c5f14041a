"""The responses of the service, as documented by OpenAPI."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class FaceRow(BaseModel):
    """A row of the predictions table; the probabilities of the age groups (`p_0-2`, ...) are further columns."""

    model_config = ConfigDict(extra="allow")

    file: str = Field(description="The file name given by the client.")
    status: str = Field(description="ok, no face, or the reason why the image could not be read.")
    face_index: int | None = Field(None, description="Index of the face in the image, by descending detector score.")
    x: float | None = Field(None, description="Box in the upright image, pixels.")
    y: float | None = None
    w: float | None = None
    h: float | None = None
    detector_score: float | None = None
    p_female: float | None = Field(None, ge=0, le=1, description="Calibrated probability of the label female.")
    gender: str | None = Field(None, description="female, male or unsure.")
    age: float | None = Field(None, description="Years: the median of the predicted distribution.")
    age_low: float | None = Field(None, description="Lower end of the 80% interval.")
    age_high: float | None = None
    age_group: str | None = None
    quality: str | None = Field(
        None, description="Empty, or any of: one colour, small, blurred, cut off, turned away, unusual."
    )


class Prediction(BaseModel):
    """The response of /v1/predict."""

    model: str
    rows: list[FaceRow]
    faces_left_out: int = Field(description="Faces above the limit per image, which are omitted.")


class Explanation(BaseModel):
    """The response of /v1/explain: maps over equal cells of the face crop, from the upper left."""

    face_index: int
    crop: dict[str, float] = Field(description="x, y and side of the mapped square, in pixels of the upright image.")
    maps: dict[str, list[list[float]]]


class ModelInfo(BaseModel):
    """The response of /v1/model."""

    name: str
    labels: str
    tasks: list[str]
    columns: list[str]
    image_size: int
    unsure_below: float | None
    data: dict[str, Any]
    calibration: dict[str, Any] | None
    notice: str | None
    card: bool
    limits: dict[str, float]
    version: str


class Error(BaseModel):
    """A rejected request: a short machine-readable reason and a message."""

    reason: str
    detail: str


def _example(content: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"example": content}}}


_FACE = {"face_index": 0, "x": 182.1, "y": 77.4, "w": 101.6, "h": 101.6, "detector_score": 2.07, "quality": ""}
_PREDICTION = {
    "p_female": 0.74,
    "gender": "female",
    "age": 26.7,
    "age_low": 20.5,
    "age_high": 36.0,
    "age_group": "25-32",
}

EXAMPLES = {
    "predict": _example(
        {
            "model": "mien-2",
            "rows": [
                {"file": "astronaut.png", "status": "ok", **_FACE, **_PREDICTION},
                {"file": "notes.txt", "status": "not an image"},
            ],
            "faces_left_out": 0,
        }
    ),
    "explain": _example(
        {
            "face_index": 0,
            "crop": {"x": 178.4, "y": 73.2, "side": 110.0},
            "maps": {"gender": [[0.1, 0.0], [0.4, 0.2]], "age": [[1.0, 0.0], [-0.5, 2.0]]},
        }
    ),
}
