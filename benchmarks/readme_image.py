"""Draw ``docs/astronaut.jpg``, the image of the README: one photograph after each stage."""

import base64
import io
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from hybridseg import DenseCRF, GraphCut, PixelClassifier
from hybridseg.datasets import load_photos
from hybridseg.metrics import mean_iou
from hybridseg.report.images import class_colors, labels_uri, photo_uri

WIDTH, GAP, CAPTION = 300, 6, 26


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))).convert("RGBA")


def main() -> None:
    data = load_photos("astronaut")
    image, truth, drawn = data.images[0], data.truth[0], data.scribbles[0]
    colors = class_colors(dict(enumerate(data.classes[0])))
    scenes = PixelClassifier(random_state=0).fit([image], [drawn]).transform([image])
    crf = DenseCRF(
        spatial_weight=3.0,
        spatial_width=3.0,
        bilateral_weight=4.0,
        bilateral_width=40.0,
        bilateral_color=10.0,
    )
    panels = [("scribbles: the training labels", drawn, True)]
    for name, labels in [
        ("pixel forest", scenes[0].prediction),
        ("… with DenseCRF", crf.predict(scenes)[0]),
        ("… with GraphCut", GraphCut(weight=20.0, connectivity=2).predict(scenes)[0]),
    ]:
        panels.append((f"{name}: mean IoU {mean_iou(truth, labels):.2f}", labels, False))
    panels.append(("truth, drawn by hand", truth, False))
    photo = decoded(photo_uri(image, WIDTH, quality=95))
    size = (len(panels) * (WIDTH + GAP) - GAP, photo.height + CAPTION)
    sheet = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for i, (caption, labels, sparse) in enumerate(panels):
        over = decoded(labels_uri(labels, colors, WIDTH, sparse=sparse))
        x = i * (WIDTH + GAP)
        sheet.paste(Image.alpha_composite(photo, over).convert("RGB"), (x, 0))
        pen.text((x + 2, photo.height + 4), caption, fill="black", font=font)
    sheet.save(Path(__file__).parents[1] / "docs" / "astronaut.jpg", quality=88)


if __name__ == "__main__":
    main()
