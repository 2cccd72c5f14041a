"""Demonstration faces: drawn portraits, written in the layouts of Adience and of CelebA.

These faces check machinery and say nothing about people. The labels come first and the drawing follows from
them, by rules made up in `portraits`: a score shows that reading, splitting, training and reporting work, and
nothing else.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mien.base.atomic import atomic_path
from mien.base.errors import MienError, choices
from mien.demo.portraits import STYLES, Person, Picture, Rng, Style, mouth_gap, portrait, sample_person, sample_picture

MARKER = "DRAWN_BY_MIEN.json"
"""The file that tells a drawing from a stranger's folder; the label files, written last, complete it."""

_SUBJECTS = 400
_FEWEST = 10


@dataclass(frozen=True)
class _Plan:
    """What a drawing will write: path, person and picture of each image, and the text of each label file."""

    images: list[tuple[str, Person, Picture]]
    labels: dict[str, str]
    counts: dict[str, int]


def _pictures_of(seed: Sequence[int], subject: int, person: Person, style: Style) -> list[Picture]:
    """A handful of pictures; some subjects have one to three, some dozens."""
    rng = np.random.default_rng([*seed, 1, subject])
    low, high = ((1, 4), (5, 9), (10, 26))[rng.choice(3, p=[0.08, 0.87, 0.05])]
    count = int(rng.integers(low, high))
    return [sample_picture(rng, person, style, (*seed, 2, subject, k)) for k in range(count)]


# Ages as Adience writes them, youngest first, and about how often.
_INTERVALS = ("(0, 2)", "(4, 6)", "(8, 12)", "(15, 20)", "(25, 32)", "(38, 43)", "(48, 53)", "(60, 100)")
_INTERVAL_SHARES = (0.145, 0.125, 0.122, 0.095, 0.285, 0.13, 0.048, 0.05)
_ODD_INTERVALS = {2: ("(8, 23)",), 4: ("(27, 32)", "(25, 23)"), 5: ("(38, 42)", "(38, 48)")}
_SINGLE_YEARS = (13, 22, 23, 34, 35, 36, 45, 55, 57)
_ADIENCE_HEADER = "\t".join(
    ["user_id", "original_image", "face_id", "age", "gender", "x", "y", "dx", "dy"]
    + ["tilt_ang", "fiducial_yaw_angle", "fiducial_score"]
)


def _adience_person(seed: Sequence[int], subject: int) -> tuple[Person, str, str]:
    """A subject, and the age and gender that its rows give as a rule."""
    rng = np.random.default_rng([*seed, 0, subject])
    # A sequence of low discrepancy (Roberts' R2) spreads genders and ages evenly over the folds.
    spread = (0.5 + subject * np.array([0.7548776662, 0.5698402910])) % 1
    gender = "female" if spread[0] < 0.53 else "male"
    if rng.random() < 0.055:
        years = int(rng.choice(_SINGLE_YEARS))
        return sample_person(rng, gender, years + rng.random()), str(years), gender[0]
    group = int(np.searchsorted(np.cumsum(_INTERVAL_SHARES)[:-1], spread[1]))
    low, high = (int(year) for year in _INTERVALS[group].strip("()").split(", "))
    age = rng.uniform(low, high + 1) if high < 100 else min(95.0, low + rng.exponential(9))
    unknown = group == 0 and rng.random() < 0.42
    return sample_person(rng, gender, float(age)), _INTERVALS[group], "u" if unknown else gender[0]


def _adience_labels(rng: Rng, age: str, gender: str) -> tuple[str, str]:
    """The labels of one row: those of the subject, with the noise and the oddities of the real files."""
    chance = rng.random(4)
    if gender != "u" and chance[0] < 0.015:
        gender = "f" if gender == "m" else "m"
    if age in _INTERVALS:
        group = _INTERVALS.index(age)
        if chance[1] < 0.03:
            age = _INTERVALS[int(np.clip(group + rng.choice([-1, 1]), 0, len(_INTERVALS) - 1))]
        elif chance[1] < 0.06 and group in _ODD_INTERVALS:
            age = str(rng.choice(_ODD_INTERVALS[group]))
    if chance[2] < 0.036:
        return "None", ""
    if chance[2] < 0.04:
        return age, ""
    return ("None" if chance[3] < 0.003 else age), gender


def _plan_adience(seed: Sequence[int], subjects: int) -> _Plan:
    """Albums of one to seven subjects, whole albums to a fold; a photograph may show several of its album."""
    rng, style = np.random.default_rng(seed), STYLES["adience"]
    images: list[tuple[str, Person, Picture]] = []
    folds: list[list[str]] = [[] for _ in range(5)]
    largest = int(np.clip(subjects // 10, 1, 7))
    first, album = 0, 0
    while first < subjects:
        last = min(subjects, first + int(rng.integers(1, largest + 1)))
        fold = min(folds, key=len)
        user = f"{album:08d}@N00"
        photos: dict[str, set[int]] = {}
        for subject in range(first, last):
            person, age, gender = _adience_person(seed, subject)
            for picture in _pictures_of(seed, subject, person, style):
                photo = _photo_for(rng, photos, subject)
                face = subject + 1
                path = f"faces/{user}/coarse_tilt_aligned_face.{face}.{photo}"
                images.append((path, person, picture))
                labels = _adience_labels(rng, age, gender)
                fold.append("\t".join([user, photo, str(face), *labels, *_adience_box(rng, picture)]))
        first, album = last, album + 1
    faces = sum(map(len, folds))
    for _ in range(max(1, round(0.006 * faces))):  # rows that occur twice, as in the real files
        fold = folds[int(rng.integers(5))]
        fold.insert(int(rng.integers(len(fold))), fold[int(rng.integers(len(fold)))])
    labels_of = {f"fold_{k}_data.txt": "\n".join([_ADIENCE_HEADER, *rows]) + "\n" for k, rows in enumerate(folds)}
    counts = {"images": faces, "subjects": subjects, "albums": album, "rows": sum(map(len, folds))}
    return _Plan(images, labels_of, counts)


def _photo_for(rng: Rng, photos: dict[str, set[int]], subject: int) -> str:
    """A new photograph of the album, or one that shows others already."""
    shared = [photo for photo, seen in photos.items() if subject not in seen and len(seen) < 4]
    if shared and rng.random() < 0.2:
        photo = shared[int(rng.integers(len(shared)))]
    else:
        photo = f"{int(rng.integers(10**10)):010d}_{int(rng.integers(16**10)):010x}_o.jpg"
    photos.setdefault(photo, set()).add(subject)
    return photo


def _adience_box(rng: Rng, picture: Picture) -> list[str]:
    """The columns x, y, dx, dy, tilt_ang, fiducial_yaw_angle, fiducial_score."""
    x, y, size = int(rng.integers(3000)), int(rng.integers(2000)), int(rng.integers(90, 1500))
    tilt, yaw = 5 * int(rng.integers(-20, 21)), 15 * round(float(np.degrees(picture.yaw)) / 15)
    return [str(value) for value in (x, y, size, size, tilt, yaw, int(rng.integers(15, 180)))]


def _celeba_attributes(rng: Rng, person: Person, picture: Picture) -> dict[str, bool]:
    """The attributes in the order of CelebA's file, true to the drawing; `Attractive` is a coin tossed."""
    bald = person.bald
    hair = not bald and person.grey < 0.5 and not picture.grey
    return {
        "5_o_Clock_Shadow": person.beard == "stubble",
        "Arched_Eyebrows": person.brow_arch > 0.075,
        "Attractive": bool(rng.random() < 0.5),
        "Bags_Under_Eyes": person.wrinkles > 0.3,
        "Bald": bald,
        "Bangs": not bald and person.has_fringe and not picture.hat,
        "Big_Lips": person.lips > 0.1,
        "Big_Nose": person.nose_wide > 0.16,
        "Black_Hair": hair and person.hair_name == "black",
        "Blond_Hair": hair and person.hair_name in ("dark blond", "blond", "platinum"),
        "Blurry": picture.blur > 0,
        "Brown_Hair": hair and person.hair_name in ("brown", "dark brown"),
        "Bushy_Eyebrows": person.brow > 0.09,
        "Chubby": person.cheek > 0.74,
        "Double_Chin": person.cheek > 0.73 and person.wrinkles > 0.5,
        "Eyeglasses": picture.glasses or picture.occluder == "sunglasses",
        "Goatee": person.beard == "goatee",
        "Gray_Hair": not bald and person.grey >= 0.5,
        "Heavy_Makeup": picture.makeup > 0.6,
        "High_Cheekbones": person.cheek - person.jaw > 0.17,
        "Male": person.gender == "male",
        "Mouth_Slightly_Open": mouth_gap(person, picture) > 0.02,
        "Mustache": person.beard in ("moustache", "full"),
        "Narrow_Eyes": person.eye_open < 0.44,
        "No_Beard": person.beard == "",
        "Oval_Face": person.jaw < 0.53,
        "Pale_Skin": sum(person.skin) > 3 * 205,
        "Pointy_Nose": person.nose_wide < 0.13,
        "Receding_Hairline": person.receding > 0.4,
        "Rosy_Cheeks": picture.makeup > 0.5,
        "Sideburns": person.beard in ("stubble", "full"),
        "Smiling": picture.smile > 0.35,
        "Straight_Hair": not bald and person.texture == "straight",
        "Wavy_Hair": not bald and person.texture == "wavy",
        "Wearing_Earrings": picture.earrings,
        "Wearing_Hat": picture.hat != "",
        "Wearing_Lipstick": picture.made_up,
        "Wearing_Necklace": picture.shows_necklace,
        "Wearing_Necktie": picture.clothes == "tie",
        "Young": person.age < 40,
    }


def _plan_celeba(seed: Sequence[int], subjects: int) -> _Plan:
    """Identities go whole into train, val or test (0, 1, 2), whose images follow each other in this order."""
    rng, style = np.random.default_rng(seed), STYLES["celeba"]
    parts: list[list[tuple[int, Person, Picture]]] = [[], [], []]
    for subject in range(subjects):
        own = np.random.default_rng([*seed, 0, subject])
        gender = "female" if own.random() < 0.56 else "male"
        person = sample_person(own, gender, float(min(80.0, 18 + own.gamma(1.7, 11))))
        part = {8: 1, 9: 2}.get(subject % 10, 0)
        parts[part] += [(subject + 1, person, p) for p in _pictures_of(seed, subject, person, style)]
    images: list[tuple[str, Person, Picture]] = []
    attributes, partition, identity = [], [], []
    for part, members in enumerate(parts):
        for k in rng.permutation(len(members)):
            number, person, picture = members[k]
            name = f"{len(images) + 1:06d}.jpg"
            images.append((f"img_align_celeba/{name}", person, picture))
            values = _celeba_attributes(rng, person, picture)
            row = " ".join(" 1" if value else "-1" for value in values.values())
            attributes.append(f"{name} {row}\n")
            partition.append(f"{name} {part}\n")
            identity.append(f"{name} {number}\n")
    head = f"{len(images)}\n{' '.join(values)} \n"
    labels = {
        "identity_CelebA.txt": "".join(identity),
        "list_eval_partition.txt": "".join(partition),
        "list_attr_celeba.txt": head + "".join(attributes),
    }
    return _Plan(images, labels, {"images": len(images), "subjects": subjects, "rows": len(images)})


_PLANS: dict[str, Callable[[Sequence[int], int], _Plan]] = {"adience": _plan_adience, "celeba": _plan_celeba}

# The files and folders, relative to the root, that a drawing of the layout consists of.
_OWN_PATHS = {
    "adience": r"fold_[0-4]_data\.txt|faces(/\d+@N00(/coarse_tilt_aligned_face\.\d+\.\d+_\w+_o\.jpg)?)?",
    "celeba": r"(list_attr_celeba|list_eval_partition|identity_CelebA)\.txt|img_align_celeba(/\d{6}\.jpg)?",
}
_UNFINISHED = r"\.(fold_[0-4]_data|list_\w+|identity_CelebA|DRAWN_BY_MIEN)\.\w+\.(txt|json)"


def _clear(root: Path, layout: str) -> None:
    """Makes `root` an empty folder, if it is new, empty or holds nothing but a drawing of the same layout."""
    if root.exists() and not root.is_dir():
        raise MienError(f"cannot draw into {str(root)!r}: it is not a folder")
    root.mkdir(parents=True, exist_ok=True)
    paths = sorted(root.rglob("*"))
    if not paths:
        return
    refusal = f"will not draw layout {layout!r} into {str(root)!r}"
    advice = "choose a folder that is new, empty or holds an earlier drawing of this layout"
    try:
        drawn = json.loads((root / MARKER).read_text(encoding="utf-8")).get("layout")
    except (OSError, ValueError, AttributeError):
        raise MienError(f"{refusal}: it holds {paths[0].name!r}, which mien did not draw; {advice}") from None
    if drawn != layout:
        raise MienError(f"{refusal}: it holds a drawing of layout {drawn!r}; {advice}")
    own = re.compile(f"{_OWN_PATHS[layout]}|{re.escape(MARKER)}|{_UNFINISHED}")
    for path in paths:
        name = path.relative_to(root).as_posix()
        if not own.fullmatch(name):
            raise MienError(f"{refusal}: it holds {name!r}, which mien did not draw; {advice}")
    # The label files, of which the absence tells that a drawing is not complete, lie at the top and go first;
    # the marker, which allows to go on after an interruption, stays.
    for path in sorted(paths, key=lambda path: (path.parent != root or path.is_dir(), -len(path.parts))):
        if path.is_dir():
            path.rmdir()
        elif path.name != MARKER:
            path.unlink()


def draw_faces(
    root: str | Path,
    layout: str = "adience",
    seed: int = 0,
    subjects: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, int]:
    """Draws demonstration faces into the folder `root`; they check machinery and say nothing about people.

    The same seed and number of subjects give the same bytes. Images lie flat, one folder an album, as
    `faces/<user_id>/coarse_tilt_aligned_face.<face_id>.<original_image>` (adience, 96x96 pixels) or as
    `img_align_celeba/000001.jpg` (celeba, 89x109 pixels). The label files come last: a drawing that was
    interrupted has none, and drawing again starts afresh.

    Args:
        root: A new or empty folder, or one that holds an earlier drawing of this layout, which is replaced.
        layout: adience or celeba.
        seed: Another seed draws other people.
        subjects: At least 10, about 6.4 pictures each; 400 by default.
        progress: Called with the images drawn and their number in all, after each image.

    Returns:
        How many images, subjects and rows (and albums) were written.

    Raises:
        MienError: The layout is unknown, the seed or the number of subjects is out of range, or `root` holds
            something else, of which nothing was touched.
    """
    if layout not in _PLANS:
        raise MienError(choices("layout", layout, _PLANS))
    if seed < 0:
        raise MienError(f"seed {seed!r} must be 0 or more")
    subjects = _SUBJECTS if subjects is None else subjects
    if subjects < _FEWEST:
        raise MienError(f"subjects {subjects!r} must be {_FEWEST} or more: every fold and split needs some")
    root, style = Path(root), STYLES[layout]
    plan = _PLANS[layout]([seed, list(_PLANS).index(layout)], subjects)
    _clear(root, layout)
    about = "Drawn by mien to check machinery; these faces say nothing about people."
    marker = {"about": about, "layout": layout, "seed": seed, "subjects": subjects}
    _write(root / MARKER, json.dumps(marker, indent=1) + "\n")
    for folder in sorted({Path(path).parent for path, _, _ in plan.images}):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for done, (path, person, picture) in enumerate(plan.images, start=1):
        portrait(person, picture, style).save(root / path, quality=90)
        if progress is not None:
            progress(done, len(plan.images))
    for name, text in plan.labels.items():
        _write(root / name, text)
    return plan.counts


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")
