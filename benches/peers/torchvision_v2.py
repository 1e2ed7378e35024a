"""torchvision's v2 functions on uint8 tensors, in two ways.

`torchvision_v2:image` does one image after the other, as in a dataset's transform. In
`torchvision_v2:grouped` the images of a batch that drew the same op are stacked and done at once,
which saves most of the cost of a call. There is no mask: exposed pixels take the mean colour at
once, and later ops change them.
"""

import math

import torch
import torchvision
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from measured import Measured
from policy import AFFINE, PARAMETER, Peer

torch.set_num_threads(1)
NEAREST = InterpolationMode.NEAREST


def versions():
    return f"torch {torch.__version__}, torchvision {torchvision.__version__}"


def op(images, call, fill):
    """uint8 [..., 3, side, side] after one op."""
    name, level, sign, column, row = call
    value = PARAMETER[name](level)
    signed = None if value is None else sign * value
    still = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}

    def affine(**how):
        return F.affine(images, **{**still, **how}, interpolation=NEAREST, fill=fill)

    match name:
        case "Rotate":
            return F.rotate(images, signed, interpolation=NEAREST, fill=fill)
        case "TranslateX":
            return affine(translate=[-signed, 0])
        case "TranslateY":
            return affine(translate=[0, -signed])
        case "ShearX":
            # About the corner, as Pillow does it, and not about the centre.
            return affine(shear=[math.degrees(math.atan(signed)), 0.0], center=[0, 0])
        case "ShearY":
            return affine(shear=[0.0, math.degrees(math.atan(signed))], center=[0, 0])
        case "Brightness":
            return F.adjust_brightness(images, value)
        case "Color":
            return F.adjust_saturation(images, value)
        case "Contrast":
            return F.adjust_contrast(images, value)
        case "Sharpness":
            return F.adjust_sharpness(images, value)
        case "Posterize":
            return F.posterize(images, value)
        case "Solarize":
            # 256 is refused, and means that nothing is inverted.
            return F.solarize(images, value) if value < 256 else images
        case "Invert":
            return F.invert(images)
        case "Equalize":
            return F.equalize(images)
        case "AutoContrast":
            return F.autocontrast(images)
        case "Cutout":
            half, side = value // 2, images.shape[-1]
            top, left = max(0, row - half), max(0, column - half)
            height, width = min(side, row + half) - top, min(side, column + half) - left
            return F.erase(images, top, left, height, width, images.new_tensor(fill).view(3, 1, 1))
    raise ValueError(name)


class Augment(Peer):
    grouped = False

    def prepare(self):
        # Planes, as torch wants them.
        self.planes = torch.from_numpy(self.pictures).permute(0, 3, 1, 2).contiguous()
        self.fill = list(self.mean)
        self.colour = torch.tensor(self.fill, dtype=torch.uint8).view(3, 1, 1)

    def batch(self, indices, out):
        count = len(indices)
        out = torch.from_numpy(out).view(count, 3, self.side, self.side)
        calls = self.walk.draw(count, self.side)
        images = self.by_group(indices, calls) if self.grouped else self.one_by_one(indices, calls)
        out.copy_(self.colour)
        for place, (image, draws) in enumerate(zip(images, self.base.draw(count))):
            column, row, flip, hole_column, hole_row = draws
            columns_out, columns_mirrored, columns_in = self.base.windows[column]
            rows_out, _, rows_in = self.base.windows[row]
            crop = image[:, rows_in, columns_in]
            if flip:
                columns_out, crop = columns_mirrored, crop.flip(-1)
            out[place, :, rows_out, columns_out] = crop
            out[place, :, self.base.holes[hole_row], self.base.holes[hole_column]] = self.colour
        return out

    def one_by_one(self, indices, drawn):
        for index, calls in zip(indices.tolist(), drawn):
            image = self.planes[index]
            for call in calls:
                image = op(image, call, self.fill)
            yield image

    def by_group(self, indices, drawn):
        images = self.planes[torch.from_numpy(indices)]
        for step in range(2):
            groups = {}
            for place, calls in enumerate(drawn):
                if step < len(calls):
                    name, level, sign, column, row = calls[step]
                    if name == "Cutout":
                        images[place] = op(images[place], calls[step], self.fill)
                    else:
                        groups.setdefault((name, level, sign if name in AFFINE else 1), []).append(place)
            for (name, level, sign), places in groups.items():
                places = torch.tensor(places)
                images[places] = op(images[places], (name, level, sign, 0, 0), self.fill)
        return images

    def apply(self, call, picture):
        image = torch.from_numpy(picture).permute(2, 0, 1)
        return op(image, call, self.fill).permute(1, 2, 0).numpy(), None


def start(way, arguments):
    augment = Augment(*arguments)
    augment.grouped = way == "grouped"
    return Measured(augment)
