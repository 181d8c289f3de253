"""DATA with planted copies -> recall of each transformation, and every other pair that is found.

    python benchmarks/audit_copies.py ../shared/data/birds6 [FOLDER ...]

Of each DATA at most 3,000 random images are used, and copies are of 200 of them. Pairs among the
images as they are are listed, up to 30, to be viewed.
"""

from __future__ import annotations

import io
import sys
import time

import numpy as np
from conditions import conditions
from PIL import Image, ImageEnhance

from residua.data.near_duplicates import find_near_duplicates, groups_of, thumbnails_of
from residua.data.open import open_dataset

IMAGES, COPIES, LISTED = 3000, 200, 30


def cropped(image, generator, share=0.9):
    """A random crop of this share of both sides."""
    width, height = (round(side * share) for side in image.size)
    left = int(generator.integers(0, image.width - width + 1))
    top = int(generator.integers(0, image.height - height + 1))
    return image.crop((left, top, left + width, top + height))


def recompressed(image, generator):
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=int(generator.integers(20, 60)))
    return Image.open(io.BytesIO(stream.getvalue())).convert("RGB")


def resized(image, generator):
    share = generator.uniform(0.4, 0.9)
    return image.resize([max(1, round(side * share)) for side in image.size], Image.BICUBIC)


def mirrored(image, generator):
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def brightened(image, generator):
    return ImageEnhance.Brightness(image).enhance(float(generator.choice([0.7, 1.3, 1.4])))


def all_of_them(image, generator):
    for change in (mirrored, lambda i, g: cropped(i, g, 0.92), brightened, resized, recompressed):
        image = change(image, generator)
    return image


CHANGES = (resized, recompressed, cropped, mirrored, brightened, all_of_them)


def main(paths):
    print(conditions("pillow", "numpy"))
    for path in paths:
        measured(path)


def measured(path):
    dataset = open_dataset(path)
    entries = np.random.default_rng(0).permutation(len(dataset.entries))[:IMAGES]
    entries = np.sort(entries)
    names = [dataset.entries[n].path for n in entries]

    def image(n):
        entry = int(entries[n])
        return Image.fromarray(dataset.pixels(entry, dataset.content(entry), 3, 10**8))

    thumbnails = np.concatenate(
        [thumbnails_of(np.asarray(image(n))[None]) for n in range(len(entries))]
    )
    began = time.process_time()
    found = find_near_duplicates(thumbnails)
    seconds = time.process_time() - began
    sizes = np.bincount(groups_of(len(entries), found))
    print(
        f"\n{path}: {len(entries):,} images, {len(found)} pairs as it is, the largest group "
        f"{sizes.max()}, {seconds:.1f} s of CPU time"
    )
    known = {tuple(pair) for pair in found.tolist()}
    for low, high in sorted(known)[:LISTED]:
        print(f"  {names[low]} {names[high]}")
    print(
        "\ncopy            recall   other new pairs (beyond those with copies of the pairs above)"
    )
    rows = np.random.default_rng(1).permutation(len(entries))[:COPIES]
    originals = [image(n) for n in rows]
    for change in CHANGES:
        generator = np.random.default_rng(0)
        copies = [thumbnails_of(np.asarray(change(x, generator))[None]) for x in originals]
        joined = np.concatenate([thumbnails, *copies])
        pairs = find_near_duplicates(joined).tolist()
        origin = np.concatenate([np.arange(len(entries)), rows])
        hits = {int(origin[b]) for a, b in pairs if b >= len(entries) and origin[b] == a}
        other = sum(
            origin[a] != origin[b] and tuple(sorted((origin[a], origin[b]))) not in known
            for a, b in pairs
        )
        print(f"{change.__name__:14} {len(hits) / COPIES:7.3f} {other:7}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
