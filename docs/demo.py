"""What `make demo` runs: pictures to try petseg-batch on, a run over them, one picture to look at.

With a folder of one's own photos no pictures are drawn; nothing is ever written into that folder.
"""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

import petseg
from petseg import steps
from petseg.errors import ImageError
from petseg.formats.catalog import PICTURES
from petseg.photos import imageio, sources

DEMO = Path("demo")
# EXIF orientations (tag 0x0112), each with the turn that undoes it.
ORIENTATION = 0x0112
TURNS = {
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}
PAIRS = 20  # at most, in the picture to look at
COLUMNS = 4
TILE = 200  # pixels
CAPTION = 16  # pixels


@click.command(context_settings={"show_default": True})
@click.argument("images", required=False)
@click.option("--model", help="Another ONNX file than the one in the package.")
def main(images: str | None, model: str | None) -> None:
    """Turn IMAGES, or pictures drawn here, into masks in the folder demo."""
    if images is None:
        images, ending = str(draw(DEMO / "images")), ""
    else:
        ending = f"-{sources.root(images).resolve().name}"
    folder = DEMO / f"masks{ending}"

    command = ["petseg-batch", images, str(folder), "--format", "index", "--format", "color"]
    # Nobody's work lies in the demo's own folder, and a second run should show its speed again.
    command += [] if ending else ["--redo"]
    command += ["--model", model or str(Path(petseg.__file__).parent / "assets" / "petseg.onnx")]
    click.echo(f"$ {' '.join(command)}", err=True)
    code = subprocess.call([str(Path(sys.executable).with_name(command[0])), *command[1:]])
    if code in (0, 3):  # all done, or all but some
        picture = look(images, folder, DEMO / f"look{ending}.png")
        click.echo(f"\nLook at {picture}: photos beside their masks, which lie in {folder}")
    # Photos that failed are the user's, and were told of: the demo itself went well.
    sys.exit(0 if code == 3 else code)


def draw(folder: Path) -> Path:
    """Fill a folder with a photo of a cat in many guises, and with two drawings."""
    cat = cat_photo()
    width, height = cat.size
    alpha = Image.new("L", cat.size, 0)
    ImageDraw.Draw(alpha).ellipse((0, 0, width, height), fill=255)
    cutout = cat.copy()
    cutout.putalpha(alpha.filter(ImageFilter.GaussianBlur(8)))
    collage = _landscape()
    collage.paste(cutout.resize((240, 160)), (110, 130), cutout.resize((240, 160)))
    grey16 = Image.fromarray(np.asarray(cat.convert("L")).astype(np.uint16) * 257)

    _save(cat, folder / "cat.jpg")
    _save(cat.resize((3 * width, 3 * height), Image.Resampling.LANCZOS), folder / "size/large.jpg")
    _save(cat.resize((width // 4, height // 4)), folder / "size/small.png")
    _save(cat.crop((0, 0, width, 2 * height // 3)), folder / "size/wide.webp")
    _save(cat.crop((width // 4, 0, 3 * width // 4, height)), folder / "size/tall.jpg")
    for orientation, turn in TURNS.items():
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        _save(cat.transpose(turn), folder / f"turned/exif-{orientation}.jpg", exif)
    _save(cat.convert("L"), folder / "colour/grey.jpg")
    _save(grey16, folder / "colour/grey-16-bit.png")
    _save(cat.convert("CMYK"), folder / "colour/cmyk.jpg")
    _save(cat.quantize(64), folder / "colour/palette.gif")
    _save(cutout, folder / "colour/transparent.png")
    _save(collage, folder / "drawn/cat-in-a-field.jpg")
    _save(drawn_dog(), folder / "drawn/dog.png")
    _save(drawn_house(), folder / "drawn/no-pet.png")
    return folder


def cat_photo() -> Image.Image:
    """Chelsea, by Stefan van der Walt, CC0: the photo that scikit-image's wheel carries."""
    return wheel_photo("chelsea.png")


def wheel_photo(name: str) -> Image.Image:
    """One of the pictures in scikit-image's wheel, RGB."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise SystemExit("this photo is in scikit-image: make setup-demo, or pip install it")
    with Image.open(Path(spec.origin).with_name("data") / name) as image:
        return image.convert("RGB")


def drawn_dog() -> Image.Image:
    """A brown dog on a lawn, 480x360."""
    image = _landscape()
    pen = ImageDraw.Draw(image)
    brown, dark = (150, 100, 60), (95, 60, 35)
    for left in (150, 190, 300, 340):
        pen.rounded_rectangle((left, 240, left + 26, 325), 12, fill=brown)
    pen.line((365, 210, 420, 150), fill=brown, width=16)
    pen.ellipse((130, 160, 380, 280), fill=brown)
    pen.ellipse((80, 80, 210, 215), fill=brown)
    pen.ellipse((62, 145, 130, 205), fill=(180, 130, 90))
    pen.ellipse((165, 85, 215, 190), fill=dark)
    pen.ellipse((62, 150, 86, 170), fill=(20, 20, 20))
    pen.ellipse((115, 115, 133, 133), fill=(20, 20, 20))
    return image


def drawn_house() -> Image.Image:
    """A house on a lawn and no animal, 480x360."""
    image = _landscape()
    pen = ImageDraw.Draw(image)
    pen.rectangle((150, 150, 330, 290), fill=(205, 190, 160))
    pen.polygon(((130, 150), (240, 70), (350, 150)), fill=(150, 60, 50))
    pen.rectangle((220, 215, 260, 290), fill=(90, 60, 40))
    for left in (170, 280):
        pen.rectangle((left, 180, left + 34, 212), fill=(120, 170, 210))
    return image


def _landscape() -> Image.Image:
    image = Image.new("RGB", (480, 360), (160, 200, 235))
    ImageDraw.Draw(image).rectangle((0, 220, 480, 360), fill=(95, 150, 70))
    return image


def _save(image: Image.Image, path: Path, exif: Image.Exif | None = None) -> None:
    """Write a picture where it is missing or another; a file left as it is keeps its time."""
    buffer = io.BytesIO()
    options = {} if exif is None else {"exif": exif}
    image.save(buffer, Image.registered_extensions()[path.suffix], **options)
    if not path.exists() or path.read_bytes() != buffer.getvalue():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(buffer.getvalue())


def look(images: str, folder: Path, target: Path) -> Path:
    """One PNG of photos, each beside its colour mask: the first `PAIRS` that have one."""
    pairs: list[tuple[str, Image.Image, Image.Image]] = []
    for source in sources.find(images):
        mask = steps.extra_path(folder, PICTURES["color"], steps.mask_name(source.name, "stem"))
        if not source.is_image or not mask.exists():
            continue
        try:
            photo = imageio.decode(Path(source.path).read_bytes())
        except ImageError:
            continue  # has a mask from before it broke
        with Image.open(mask) as colors:
            pairs.append((source.name, Image.fromarray(photo), colors.convert("RGB")))
        if len(pairs) == PAIRS:
            break

    rows = -(-len(pairs) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * 2 * TILE, max(rows, 1) * (TILE + CAPTION)), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(CAPTION - 4)
    for place, (name, photo, colors) in enumerate(pairs):
        left, top = place % COLUMNS * 2 * TILE, place // COLUMNS * (TILE + CAPTION)
        pen.text((left + 2, top), f"{name}  {photo.width}x{photo.height}", "black", font)
        for shift, picture in ((0, photo), (TILE, colors)):
            picture.thumbnail((TILE - 4, TILE - 4))
            sheet.paste(picture, (left + shift, top + CAPTION))
    target.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(target)
    return target


if __name__ == "__main__":
    main()
