import io
import struct
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from mien.data import images
from mien.data.image_files import _size
from mien.data.images import ImageError


def encode(array, kind="PNG", mode=None, **options):
    buffer = io.BytesIO()
    Image.fromarray(array, mode).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def astronaut():
    return data.astronaut()


def test_lossless_formats_keep_every_pixel(astronaut):
    for kind in ("PNG", "BMP", "TIFF", "PPM"):
        assert np.array_equal(images.load(encode(astronaut, kind)), astronaut), kind
    assert np.array_equal(images.load(encode(astronaut, "WEBP", lossless=True)), astronaut)


def test_path_and_bytes_are_the_same(astronaut, tmp_path):
    content = encode(astronaut, "JPEG")
    (tmp_path / "a b.jpg").write_bytes(content)
    assert np.array_equal(images.load(tmp_path / "a b.jpg"), images.load(content))


def test_decoded_images_are_taken_as_they_are(astronaut):
    assert np.array_equal(images.load(astronaut), astronaut)
    assert np.array_equal(images.load(astronaut[:, ::-1]), astronaut[:, ::-1])
    grey = astronaut[:, :, 0]
    assert np.array_equal(images.load(grey), np.stack([grey] * 3, axis=2))
    picture = Image.fromarray(astronaut)
    assert np.array_equal(images.load_face(picture, 64), images.load_face(astronaut, 64))
    assert np.array_equal(images.load(picture), astronaut), "the caller's image stays open"


@pytest.mark.parametrize("bad", [np.zeros((9, 9, 3), int), np.zeros((9, 9, 4), np.uint8), np.zeros(9, np.uint8)])
def test_arrays_that_are_no_image_are_refused_with_their_shape(bad):
    with pytest.raises(ImageError, match="not an image: pixels are .* valid: uint8"):
        images.load(bad)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_out_upright(astronaut, orientation):
    turns = {1: 0, 2: 0, 3: 2, 4: 2, 5: 1, 6: 1, 7: 3, 8: 3}
    stored = np.rot90(astronaut, turns[orientation])  # numpy turns against the clock, EXIF says how to turn back
    if orientation in (2, 4, 5, 7):
        stored = stored[:, ::-1] if orientation in (2, 4) else stored[::-1]
    exif = Image.Exif()
    exif[0x0112] = orientation
    got = images.load(encode(np.ascontiguousarray(stored), "PNG", exif=exif))
    assert np.array_equal(got, astronaut)


def turned(array, orientation):
    """How a picture is stored whose EXIF note says how to turn it upright."""
    turns = {1: 0, 2: 0, 3: 2, 4: 2, 5: 1, 6: 1, 7: 3, 8: 3}
    stored = np.rot90(array, turns[orientation])
    if orientation in (2, 4, 5, 7):
        stored = stored[:, ::-1] if orientation in (2, 4) else stored[::-1]
    return np.ascontiguousarray(stored)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_format_with_an_orientation_gives_the_same_size_and_face(astronaut, tmp_path, kind, orientation):
    tall = astronaut[:, 100:400]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 98}}.get(kind, {})
    content = encode(turned(tall, orientation), kind, exif=exif, **options)
    file = tmp_path / f"face.{kind.lower()}"
    file.write_bytes(content)
    box = (73.0, 60.0, 100.0, 110.0)
    expected, _ = images.load_face_and_side(tall, 32, box)
    for source in (content, file):
        assert images.dimensions(source) == (300, 512)
        assert np.abs(images.load(source).astype(int) - tall).mean() < 3
        assert np.abs(images.load_face(source, 32, box).astype(int) - expected).mean() < 3
        assert np.abs(images.load_face(source, 200).astype(int) - images.load_face(tall, 200)).mean() < 3
    assert _size(file) == (300, 512)


def test_orientation_and_box_agree_when_the_decoder_reduces(astronaut):
    tall = astronaut[:, :300]
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = encode(np.ascontiguousarray(np.rot90(tall)), "JPEG", quality=98, exif=exif)
    box = (120.0, 40.0, 120.0, 150.0)
    upright = images.load_face(encode(tall, "PNG"), 32, box)
    assert np.abs(images.load_face(lying, 32, box).astype(int) - upright).mean() < 3


def test_grey_cmyk_16_bit_and_transparency(astronaut):
    grey = astronaut[..., 1]
    assert np.array_equal(images.load(encode(grey)), np.repeat(grey[..., None], 3, axis=2))
    deep = grey.astype(np.uint16) * 257
    assert np.array_equal(images.load(encode(deep)), np.repeat(grey[..., None], 3, axis=2))
    cmyk = io.BytesIO()
    Image.fromarray(astronaut).convert("CMYK").save(cmyk, "JPEG", quality=98)
    assert np.abs(images.load(cmyk.getvalue()).astype(int) - astronaut).mean() < 4
    clear = np.dstack([astronaut, np.zeros_like(grey)])
    assert (images.load(encode(clear)) == 255).all()
    palette = io.BytesIO()
    Image.fromarray(astronaut).quantize(16).save(palette, "PNG", transparency=0)
    assert images.load(palette.getvalue()).shape == astronaut.shape


def test_animation_gives_its_first_picture(astronaut):
    first, second = Image.fromarray(astronaut), Image.new("RGB", (512, 512))
    for kind in ("GIF", "WEBP"):
        buffer = io.BytesIO()
        first.save(buffer, kind, save_all=True, append_images=[second], lossless=True)
        assert np.abs(images.load(buffer.getvalue()).astype(int) - astronaut).mean() < 20, kind


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_header(width, height):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100)))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"hello, this is text", "not an image"),
        (b"%PDF-1.7 ...", "not an image"),
        (png_header(30_000, 30_000), "too large"),
        (png_header(1, 1), "too small"),
        (png_header(4000, 4), "too small"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refused_by_reason(content, reason):
    with pytest.raises(ImageError) as error:
        images.load(content)
    assert error.value.reason == reason


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_truncated_files_are_refused_not_half_read(astronaut, kind, share):
    content = encode(astronaut, kind)
    with pytest.raises(ImageError) as error:
        images.load(content[: int(share * len(content))])
    assert error.value.reason in ("truncated", "not an image", "unreadable")


def test_missing_folder_and_strange_names(tmp_path):
    for name in ("absent.jpg", "a" * 300 + ".jpg", "nul\0byte.jpg", "line\nbreak.jpg"):
        with pytest.raises(ImageError) as error:
            images.load(tmp_path / name)
        assert error.value.reason in ("missing", "unreadable")
    with pytest.raises(ImageError, match="missing"):
        images.load(tmp_path)


@given(st.binary(max_size=300))
def test_any_bytes_are_an_image_or_an_image_error(content):
    try:
        assert images.load(content).dtype == np.uint8
    except ImageError as error:
        assert error.reason


def test_errors_survive_a_process_boundary():
    import pickle

    error = pickle.loads(pickle.dumps(ImageError("truncated", "a.jpg: broken")))
    assert error.reason == "truncated" and str(error) == "truncated: a.jpg: broken"


def test_square_by_hand():
    assert images.square(178, 218) == (0, 20, 178)
    assert images.square(100, 100, (10, 20, 40, 20)) == (10, 10, 40)
    assert images.square(100, 100, (10, 20, 40, 20), margin=0.5) == (0, 0, 60)


def test_beyond_the_image_repeats_the_edge():
    image = np.zeros((20, 20, 3), np.uint8)
    image[:, 0] = 200
    got = images.cut(image, (-10, 0, 20), 20)
    assert (got[:, :10] == 200).all() and (got[:, 12:] == 0).all()


def test_a_box_far_outside_is_refused():
    with pytest.raises(ImageError) as error:
        images.cut(np.zeros((20, 20, 3), np.uint8), (500, 500, 10), 8)
    assert error.value.reason == "outside"


def progressive(scans, side=64):
    content = encode(np.zeros((side, side, 3), np.uint8), "JPEG", progressive=True)
    last = content.rfind(b"\xff\xda")
    return content[:-2] + content[last:-2] * scans + b"\xff\xd9"


def test_parts_that_multiply_the_work_are_counted_before_decoding(astronaut, tmp_path):
    profile = chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(1000)))
    png = encode(astronaut, "PNG")
    jpeg = encode(astronaut, "JPEG")
    bombs = [
        progressive(4000),
        jpeg[:2] + b"\xff\xe5\x00\x02" * 6000 + jpeg[2:],
        png[:33] + profile * 500 + png[33:],
        png[:33] + chunk(b"teST", b"") * 100_001 + png[33:],
        b"P3\n900 900\n255\n" + b"#\n" * 100_000,  # the decoder takes time with the square of their number
    ]
    for number, content in enumerate(bombs):
        (tmp_path / "bomb").write_bytes(content)
        for source in (content, tmp_path / "bomb"):
            for function in (images.load, images.dimensions):
                with pytest.raises(ImageError) as error:
                    function(source)
                assert error.value.reason == "too complex", number


def test_scans_of_large_pictures_are_fewer():
    """Each scan passes over the whole picture: 60 of 81 million pixels took minutes."""

    def stated(side, scans):
        content = bytearray(progressive(scans))
        at = content.index(b"\xff\xc2") + 5
        content[at : at + 4] = side.to_bytes(2) * 2
        return bytes(content)

    with pytest.raises(ImageError, match="scans pass over more than") as error:
        images.load(stated(9000, 60))
    assert error.value.reason == "too complex"
    assert images.dimensions(stated(9000, 2)) == (9000, 9000)
    assert images.load(progressive(60)).shape == (64, 64, 3)


def test_scans_hidden_behind_a_false_marker_are_counted():
    content = progressive(1)
    last = content.rfind(b"\xff\xda")
    hidden = content[:-2] + b"\xff\x02\x7f\xf0" + content[last:-2] * 4000 + b"\xff\xd9"
    with pytest.raises(ImageError, match="too complex"):
        images.load(hidden)


def test_counting_pixels_decodes_nothing(monkeypatch):
    jpeg = progressive(1)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    assert images.pixel_count(png_header(3000, 2000)) == 6_000_000
    assert images.pixel_count(jpeg) == 64 * 64


def test_usual_files_of_many_parts_are_read(astronaut):
    exif = Image.Exif()
    exif[0x010E] = "a" * 60_000
    many = encode(astronaut, "JPEG", progressive=True, exif=exif, icc_profile=bytes(3_000_000))
    assert images.load(many).shape == astronaut.shape
    clip = many + b"\xff\xda" * 5000  # a clip behind the picture, as some phones append one
    assert images.load(clip).shape == astronaut.shape
    assert images.load(encode(astronaut, "PNG", icc_profile=bytes(500_000))).shape == astronaut.shape
    assert images.load(b"P3 # a comment\n9 9\n255\n" + b"7 " * 243).shape == (9, 9, 3)


@pytest.mark.parametrize(
    "box", [(0, 0, 40_000, 40_000), (-20_000, -20_000, 40_000, 40_000), (0, 0, 1e308, 1e308), (-1e300, 0, 9, 9)]
)
def test_a_box_much_larger_than_its_image_is_outside(astronaut, box, monkeypatch):
    monkeypatch.setattr(np, "pad", lambda *rest, **more: pytest.fail("no memory is taken"))
    for source in (astronaut, encode(astronaut, "JPEG")):
        with pytest.raises(ImageError) as error:
            images.load_face(source, 64, box, 0.4)
        assert error.value.reason == "outside"


def test_a_box_of_the_whole_image_with_the_largest_margin_is_inside(astronaut):
    assert images.load_face(astronaut, 64, (0, 0, 512, 512), 2.0).shape == (64, 64, 3)


@given(
    st.integers(8, 60),
    st.integers(8, 60),
    st.tuples(st.floats(-20, 60), st.floats(-20, 60), st.floats(1, 80), st.floats(1, 80)),
    st.floats(0, 1),
)
def test_any_box_gives_a_square_or_a_reason(width, height, box, margin):
    image = np.full((height, width, 3), 77, np.uint8)
    try:
        got = images.cut(image, images.square(width, height, box, margin), 16)
    except ImageError as error:
        assert error.reason == "outside"
    else:
        assert got.shape == (16, 16, 3) and (got == 77).all()


def test_golden_face(astronaut):
    face = images.load_face(encode(astronaut, "PNG"), 8, (173, 60, 100, 110), 0.2)
    assert face.shape == (8, 8, 3)
    assert face.mean(axis=(0, 1)).round(1).tolist() == [158.8, 135.0, 110.5]


def test_floats_from_0_to_1_are_pixels():
    pixels = np.linspace(0, 255, 16 * 16 * 3).astype(np.uint8).reshape(16, 16, 3)
    assert np.array_equal(images.load(pixels / 255), pixels)
    for wrong in (pixels.astype(float), pixels / 255 - 0.5, np.full((16, 16, 3), np.nan)):
        with pytest.raises(images.ImageError, match="valid: uint8 to 255, or floats from 0 to 1"):
            images.load(wrong)


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_formats_of_phones(kind, tmp_path, monkeypatch):
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:, 32:] = 200
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    path = tmp_path / f"a.{kind.lower()}"
    Image.fromarray(pixels).save(path, kind)
    assert path.suffix in images.SUFFIXES
    found = images.load(path)
    assert found.shape == pixels.shape and np.abs(found.astype(int) - pixels)[:, [0, -1]].max() < 20
    assert images.dimensions(path.read_bytes()) == (64, 48)
    if kind == "HEIF":
        monkeypatch.setitem(sys.modules, "pillow_heif", None)
        with pytest.raises(images.ImageError, match=r"needs mien\[heic\]: HEIC: pip install 'mien\[heic\]'"):
            images.load(path)


def test_a_photograph_of_48_megapixels_is_read_at_a_reduced_size(tmp_path):
    path = tmp_path / "large.jpg"
    Image.new("L", (8064, 6048), 90).save(path)
    found = images.load_reduced(path, lambda longer: 1000)
    assert (found.width, found.height) == (8064, 6048) and max(found.image.size) < 2100
