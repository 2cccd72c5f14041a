"""Clips, made here from one portrait: decoding, following, pooling, tables, drawings, and files that are not right."""

import shutil
import sys
from fractions import Fraction

import av
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from skimage import data

from mien import MienError, Predictor
from mien.cli import main
from mien.prediction import video_files
from mien.prediction.annotate import COLOURS
from mien.prediction.clips import ClipReader, Sighting, Track, place, predict_clip
from mien.prediction.outputs import frames_path
from mien.prediction.video_files import ClipWriter, frames

FACE = Image.fromarray(data.astronaut()[0:240, 100:340]).resize((150, 150))
MIRRORED = FACE.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
FPS = 10


def write(path, pictures, times=None, codec="libx264", shape=None, **options):
    """Writes pictures, at `FPS` or at `times` in seconds, through PyAV alone."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=FPS, options={"g": "5"})
        stream.width, stream.height, stream.pix_fmt = *pictures[0].size, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        if shape:
            stream.codec_context.sample_aspect_ratio = shape
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_image(picture)
            frame.pts = round(1000 * (times[number] if times else number / FPS))
            frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def grey(level, size=(64, 48)):
    return Image.new("RGB", size, (level, level, level))


def levels(path, every=0.0):
    """Time and mean grey of each frame."""
    return [(round(frame.time, 3), round(float(frame.image.mean()))) for frame in frames(path, every)]


def scene(left, right=None, size=(420, 200), background=(96, 110, 100)):
    """A picture with the portrait, and its mirror image, at x."""
    picture = Image.new("RGB", size, background)
    picture.paste(FACE, (left, 20))
    if right is not None:
        picture.paste(MIRRORED, (right, 30))
    return picture


def outcome(path, every=0.0):
    """How many frames there are, and what is said at the end."""
    count = 0
    try:
        for _ in frames(path, every):
            count += 1
    except MienError as error:
        return count, error.reason
    return count, "whole"


def mien(*arguments):
    """Exit status of the command line."""
    try:
        return main([str(argument) for argument in arguments]) or 0
    except SystemExit as stop:
        return stop.code or 0


@pytest.fixture(scope="module")
def predictor():
    return Predictor(threads=2)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two seconds in which two faces move to the right, by 4 pixels a frame."""
    pictures = [scene(5 + 4 * n, 185 + 4 * n) for n in range(20)]
    return write(tmp_path_factory.mktemp("pair") / "pair.mp4", pictures, movflags="faststart")


@pytest.fixture(scope="module")
def tables(predictor, pair):
    return predict_clip(predictor, pair)


def test_frames_come_with_their_times_and_at_the_steps_that_are_asked_for(tmp_path):
    path = write(tmp_path / "steps.mp4", [grey(40 + 8 * n) for n in range(20)])
    every = levels(path)
    assert [time for time, _ in every] == [n / 10 for n in range(20)]
    assert all(abs(level - (40 + 8 * n)) <= 3 for n, (_, level) in enumerate(every))
    assert [time for time, _ in levels(path, 0.5)] == [0, 0.5, 1.0, 1.5]
    assert [time for time, _ in levels(path, 0.33)] == [0, 0.4, 0.7, 1.0, 1.4, 1.7]
    assert [time for time, _ in levels(path, 60)] == [0]


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_variable_rate_is_followed_by_time(tmp_path, ending):
    times = [0, 0.1, 0.9, 1.0, 1.05, 2.4]
    path = write(tmp_path / f"variable.{ending}", [grey(60 + 20 * n) for n in range(6)], times)
    assert [time for time, _ in levels(path)] == times
    assert [(time, round((level - 60) / 20)) for time, level in levels(path, 0.5)] == [
        (0, 0),
        (0.9, 2),
        (1.0, 3),
        (2.4, 5),
    ]


def test_a_clip_without_a_duration_is_read_to_its_end(tmp_path):
    path = write(tmp_path / "live.mkv", [grey(100)] * 12, live="1")
    with av.open(str(path)) as container:
        assert container.duration is None
    assert outcome(path) == (12, "whole")


def test_a_rotated_clip_comes_upright(tmp_path):
    picture = grey(30)
    picture.paste((220, 220, 220), (0, 0, 64, 24))  # the upper half is bright
    path = write(tmp_path / "portrait.mp4", [picture] * 3)
    content = bytearray(path.read_bytes())
    # ISO 14496-12: the matrix stands 40 bytes behind the name of a track's header (version 0). This one turns
    # (x, y) to (-y, x), as telephones that are held upright note it: the upper edge comes to the right.
    matrix = content.index(b"tkhd") + 4 + 40
    for place_, value in enumerate((0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30)):
        content[matrix + 4 * place_ : matrix + 4 * place_ + 4] = value.to_bytes(4, "big", signed=True)
    path.write_bytes(content)
    image = next(frames(path)).image
    assert image.shape == (64, 48, 3)
    assert image[:, 30:].mean() > 200 and image[:, :18].mean() < 50


def test_wide_pixels_become_square(tmp_path):
    path = write(tmp_path / "wide.mp4", [grey(90)] * 3, shape=Fraction(4, 3))
    assert next(frames(path)).image.shape == (48, 85, 3)


def test_a_cut_is_seen_and_motion_is_none(tmp_path):
    first = [scene(10 + 12 * n) for n in range(8)]
    second = [scene(10 + 12 * n, background=(160, 150, 190)) for n in range(8)]
    path = write(tmp_path / "cut.mp4", first + second)
    assert [round(frame.time, 1) for frame in frames(path) if frame.new_shot] == [0.8]
    assert [(round(frame.time, 1), frame.new_shot) for frame in frames(path, 0.5)] == [
        (0, False),
        (0.5, False),
        (1.0, True),
        (1.5, False),
    ]


@pytest.mark.parametrize(
    ("ending", "codec", "options"),
    [
        ("mp4", "libx264", {"movflags": "faststart"}),
        ("mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}),
        ("mkv", "libx264", {}),
        ("mkv", "libx264", {"live": "1"}),
        ("avi", "mpeg4", {}),
        ("flv", "libx264", {}),
    ],
)
def test_a_file_that_ends_in_mid_frame_gives_what_it_had_and_says_so(tmp_path, ending, codec, options):
    random = np.random.default_rng(0)
    pictures = [Image.fromarray(random.integers(0, 255, (48, 64, 3), np.uint8)) for _ in range(20)]
    path = write(tmp_path / f"whole.{ending}", pictures, codec=codec, **options)
    assert outcome(path) == (20, "whole")
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux() if packet.size]
    content = path.read_bytes()
    for number in (8, 19):  # the last one too
        begin, size = packets[number]
        path.write_bytes(content[: begin + size // 2])
        count, said = outcome(path)
        assert said == "truncated" and number - 4 < count <= number, (number, count)


def test_a_damaged_frame_in_the_midst_is_left_out_and_said(tmp_path):
    random = np.random.default_rng(0)
    pictures = [Image.fromarray(random.integers(0, 255, (48, 64, 3), np.uint8)) for _ in range(20)]
    path = write(tmp_path / "damaged.mp4", pictures)
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux() if packet.size][7]
    content = bytearray(path.read_bytes())
    content[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    path.write_bytes(content)
    count, said = outcome(path)
    assert said == "damaged" and 12 < count < 20


@pytest.mark.parametrize(("ending", "codec"), [("mp4", "libx264"), ("mkv", "libx264"), ("ts", "libx264")])
def test_wrong_bytes_anywhere_end_in_a_reason(tmp_path, ending, codec):
    random = np.random.default_rng(0)
    path = write(tmp_path / f"whole.{ending}", [grey(40 + 8 * n) for n in range(20)], codec=codec)
    content = path.read_bytes()
    for _ in range(60):
        wrong = bytearray(content)
        for place_ in random.integers(0, len(wrong), 5):
            wrong[place_ : place_ + 4] = random.bytes(4)
        path.write_bytes(wrong)
        count, said = outcome(path)
        assert count <= 60 and said in {
            "whole",
            "truncated",
            "damaged",
            "not a video",
            "no video",
            "unreadable",
            "unsupported",
            "too small",
            "too large",
        }


def make_sound(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return path


def test_what_is_no_clip_is_named(tmp_path, monkeypatch):
    whole = write(tmp_path / "whole.mp4", [grey(100)] * 5)
    made = {
        "empty.mp4": (b"", "empty"),
        "wrong.mp4": (b"not a clip at all" * 100, "not a video"),
        "picture.mp4": (b"\x89PNG\r\n\x1a\n", "not a video"),
        "playlist.mp4": (f"#EXTM3U\n#EXTINF:1,\nfile://{whole}\n#EXT-X-ENDLIST\n".encode(), "not a video"),
        "concat.mp4": (f"ffconcat version 1.0\nfile {whole.name}\n".encode(), "not a video"),
        "noindex.mp4": (whole.read_bytes()[:-200], "truncated"),
    }
    for name, (content, said) in made.items():
        (tmp_path / name).write_bytes(content)
        assert outcome(tmp_path / name) == (0, said), name
    assert outcome(tmp_path / "gone.mp4") == (0, "missing")
    assert outcome(tmp_path) == (0, "missing")
    assert outcome(make_sound(tmp_path / "sound.mp4")) == (0, "no video")
    assert outcome(write(tmp_path / "tiny.mkv", [grey(9, (4, 64))], codec="ffv1")) == (0, "too small")
    monkeypatch.setattr("mien.data.images.MAX_PIXELS", 64 * 48 - 1)
    assert outcome(whole) == (0, "too large")


def test_two_faces_are_two_tracks_with_steady_numbers(tables):
    found = tables.frames
    assert list(found["time"].unique()) == [0.0, 0.5, 1.0, 1.5]
    assert set(found["status"]) == {"ok"} and len(found) == 8
    places = found.pivot_table(index="time", columns="face_index", values="x")
    assert list(places.columns) == [0, 1]
    # Each number is one of the two portraits, which are 180 pixels apart and move by 40 pixels a second.
    left, right = sorted(places.columns, key=lambda number: places[number].iloc[0])
    assert np.allclose(places[right] - places[left], 180, atol=25)
    assert np.allclose(places.diff().iloc[1:], 20, atol=12)


def test_a_track_is_the_mean_of_its_frames_and_the_words_follow(predictor, tables):
    assert list(tables.tracks.columns) == [
        "file",
        "face_index",
        "start",
        "end",
        "frames",
        "pooled",
        *predictor.columns[2:],
    ]
    assert list(tables.frames.columns) == ["file", "time", *predictor.columns[1:]]
    assert len(tables.tracks) == 2
    for row in tables.tracks.to_dict("records"):
        own = tables.frames[tables.frames["face_index"] == row["face_index"]]
        assert (row["frames"], row["start"], row["end"]) == (len(own), own["time"].min(), own["time"].max())
        if own["quality"].isin(["", np.nan]).any():
            own = own[own["quality"].isin(["", np.nan])]
        assert row["pooled"] == len(own)
        for name in predictor.outputs:
            assert row[name] == pytest.approx(own[name].mean(), abs=0.006), name
        assert row["age_low"] < row["age"] < row["age_high"]
        certainty = max(row["p_female"], 1 - row["p_female"])
        word = "female" if row["p_female"] >= 0.5 else "male"
        assert row["gender"] == (word if certainty >= predictor.metadata["unsure_below"] else "unsure")


def test_frames_with_a_note_count_only_where_there_are_no_others():
    track = Track(0.0, 0.0)
    for time, age, quality in (
        (0, 10, "blurred"),
        (1, 20, "blurred; small"),
        (2, 60, ""),
        (3, 90, "small"),
        (4, 40, ""),
    ):
        if time == 2:
            assert (track.frames, track.pooled, track.sums) == (2, 2, {"age": 30.0})
            assert track.notes == {"blurred": 2, "small": 1}
        track.add(time, {"age": age}, quality)
    assert (track.start, track.end, track.frames, track.pooled, track.sums) == (0.0, 4, 5, 2, {"age": 100.0})
    assert not track.notes


def test_an_unsure_track_says_so(predictor):
    means = dict.fromkeys(predictor.outputs, 0.1) | {"p_female": 0.52, "age": 30.0}
    answer = predictor.predict_mean(means)
    assert answer["gender"] == "unsure" and answer["age_group"] == "25-32"
    assert predictor.predict_mean(means | {"p_female": 0.9})["gender"] == "female"


def test_no_track_goes_over_a_cut(predictor, tmp_path):
    pictures = [scene(60)] * 6 + [scene(60, background=(200, 200, 220))] * 6
    tracks = predict_clip(predictor, write(tmp_path / "cut.mp4", pictures), every=0.3).tracks
    assert list(tracks["frames"]) == [2, 2] and list(tracks["start"]) == [0.0, 0.6]


def test_frames_that_are_faces_already_are_one_track(predictor, tmp_path):
    tables = predict_clip(predictor, write(tmp_path / "face.mp4", [FACE] * 8), every=0.2, crops=True)
    assert list(tables.tracks["frames"]) == [4] and tables.frames["x"].isna().all()


def test_the_command_takes_clips_beside_photographs(pair, tmp_path, capsys):
    folder = tmp_path / "mixed"
    folder.mkdir()
    shutil.copy(pair, folder / "pair.MP4")
    FACE.save(folder / "face.png")
    write(folder / "plain.mkv", [grey(120, (160, 120))] * 8)
    (folder / "cut.mp4").write_bytes(pair.read_bytes()[: pair.stat().st_size * 3 // 4])
    (folder / "wrong.avi").write_bytes(b"no clip")
    out = tmp_path / "faces.csv"
    assert mien("predict", folder, "--out", out, "--draw", tmp_path / "drawn") == 2
    said = capsys.readouterr().out
    assert "5 files: 2 ok" in said and "1 truncated" in said and "1 not a video" in said
    table = pd.read_csv(out)
    table["name"] = table["file"].str.rsplit("/", n=1).str[-1]
    statuses = table.groupby("name")["status"].agg(list).to_dict()
    assert statuses == {
        "pair.MP4": ["ok", "ok"],
        "face.png": ["ok"],
        "plain.mkv": ["no face"],
        "cut.mp4": ["ok", "ok", "truncated"],
        "wrong.avi": ["not a video"],
    }
    assert set(table.loc[table["frames"].notna(), "name"]) == {"pair.MP4", "cut.mp4"}
    seen = pd.read_csv(frames_path(out))
    joined = seen[seen["status"] == "ok"].merge(table, on=["file", "face_index"], validate="many_to_one")
    assert len(joined) == (seen["status"] == "ok").sum() and not seen["file"].str.endswith("png").any()
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["cut.mp4", "face.png", "pair.mp4"]
    assert mien("predict", pair, "--out", out) == 1


def test_a_drawn_clip_has_all_frames_with_boxes_that_move(pair, tmp_path):
    assert mien("predict", pair, "--draw", tmp_path, "--every", "0.9") == 0
    drawn, original = list(frames(tmp_path / "pair.mp4")), list(frames(pair))
    assert [frame.time for frame in drawn] == pytest.approx([frame.time for frame in original], abs=1e-3)
    assert drawn[0].image.shape == original[0].image.shape
    places = []
    for frame in drawn:
        near = np.abs(frame.image.astype(int) - COLOURS["female"]).sum(axis=2) < 90
        places.append(np.nonzero(near.sum(axis=0) > 40)[0].min())
    assert np.polyfit(range(19), places[:19], 1)[0] == pytest.approx(4, abs=1.0)


def test_every_output_of_clips_holds_the_same_rows(pair, tmp_path, capsys):
    for ending in ("csv", "jsonl", "parquet"):
        assert mien("predict", pair, "--every", 1, "--out", tmp_path / f"t.{ending}") == 0
    readers = {"csv": pd.read_csv, "jsonl": lambda path: pd.read_json(path, lines=True), "parquet": pd.read_parquet}
    for name in ("t", "t-frames"):
        csv, lines, parquet = (read(tmp_path / f"{name}.{ending}") for ending, read in readers.items())
        assert len(csv) == len(lines) == len(parquet) > 1
        assert np.allclose(csv["age"], parquet["age"]) and np.allclose(csv["age"], lines["age"])
    assert mien("predict", pair, "--every", 1) == 0
    assert "0.0 to 1.0" in capsys.readouterr().out


def test_an_interrupted_command_goes_on_after_the_last_whole_clip(pair, tmp_path, monkeypatch, capsys):
    class Killed(BaseException):
        pass

    for name in ("a.mp4", "b.mp4"):
        shutil.copy(pair, tmp_path / name)
    FACE.resize((64, 64)).save(tmp_path / "face.png")
    command = ("predict", *(tmp_path / name for name in ("b.mp4", "a.mp4", "face.png")), "--every", 1)
    out = tmp_path / "out.csv"
    real, read = ClipReader.frame_rows, []

    def stop(self, progress=None):
        read.append(self.path)
        if len(read) == 2:
            raise Killed
        return real(self, progress)

    monkeypatch.setattr(ClipReader, "frame_rows", stop)
    with pytest.raises(Killed):
        mien(*command, "--out", out)
    assert not out.exists() and not frames_path(out).exists()
    assert mien(*command, "--out", out, "--every", 2) == 1 and "another --every" in capsys.readouterr().err
    assert mien(*command, "--out", out) == 0 and "2 files are done" in capsys.readouterr().out
    assert [path[-5:] for path in read] == ["b.mp4", "a.mp4", "a.mp4"]
    monkeypatch.undo()
    assert mien(*command, "--out", tmp_path / "whole.csv") == 0
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert frames_path(out).read_bytes() == (tmp_path / "whole-frames.csv").read_bytes()


def test_seconds_between_looks_must_be_some(pair, capsys):
    assert mien("predict", pair, "--every", 0) == 1
    assert "more than 0" in capsys.readouterr().err


def test_without_pyav_the_extra_is_named(pair, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "av", None)
    assert mien("predict", pair) == 1
    assert "pip install 'mien[video]'" in capsys.readouterr().err


def test_a_box_goes_straight_between_looks_and_stays_where_the_face_was_away():
    seen = [Sighting(1.0, (0, 0, 10, 10)), Sighting(1.5, (10, 0, 20, 20)), Sighting(4.0, (90, 0, 20, 20))]
    assert place(seen, 1.25, 0.5) == [5, 0, 15, 15]
    assert place(seen, 1.7, 0.5) == (10, 0, 20, 20) and place(seen, 3.8, 0.5) == (90, 0, 20, 20)
    assert place(seen, 2.5, 0.5) is None and place(seen, 0.7, 0.5) is None and place(seen, 4.3, 0.5) is None


def test_an_encoder_is_found_where_there_is_no_h264(tmp_path, monkeypatch):
    with ClipWriter(tmp_path / "plain.mp4") as writer:
        writer.add(np.full((49, 65, 3), 90, np.uint8), 0.0)
    ((time, level),) = levels(tmp_path / "plain.mp4")
    assert time == 0 and abs(level - 90) <= 3
    monkeypatch.setattr(video_files, "_ENCODERS", (("no such encoder", {}), *video_files._ENCODERS[1:]))
    with ClipWriter(tmp_path / "other.mp4") as writer:
        for number in range(3):
            writer.add(np.full((48, 64, 3), 90, np.uint8), number / 10)
    with av.open(str(tmp_path / "other.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4" and container.streams.video[0].frames == 3
