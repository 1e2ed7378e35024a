"""The pixels of a peer's ops beside ours."""

OPS = ["Rotate", "TranslateX", "TranslateY", "Brightness", "Color", "Invert", "Sharpness", "Posterize",
       "ShearX", "Solarize", "ShearY", "Equalize", "AutoContrast", "Cutout", "Contrast"]
SIGNED = ("Rotate", "TranslateX", "TranslateY", "ShearX", "ShearY")


def compare(ours, theirs, side, pictures, levels):
    """What each op of a peer differs in from ours, over levels and signs, where ours is visible:
    ops that are equal, and for each other one the part of bytes that differ, and the largest
    difference. A mask that is not ours counts as a difference of 255."""
    equal, different = 0, {}
    for op in OPS:
        differing = total = largest = 0
        for level in levels:
            for sign in (1, -1) if op in SIGNED else (1,):
                for picture in range(pictures):
                    centre = ((7 * level + 3 * picture) % side, (5 * level + picture) % side)
                    request = ("apply", op, level, sign, *centre, picture)
                    mine, answer = bytes.fromhex(ours.ask(*request)["rgba"]), theirs.ask(*request)
                    other = bytes.fromhex(answer["rgba"])
                    if mine == other:
                        total += 3 * side * side
                        continue
                    for pixel in range(0, len(mine), 4):
                        if answer["has_mask"] and mine[pixel + 3] != other[pixel + 3]:
                            differing, total, largest = differing + 3, total + 3, 255
                        elif mine[pixel + 3]:
                            gaps = [abs(mine[pixel + c] - other[pixel + c]) for c in range(3)]
                            differing += sum(gap > 0 for gap in gaps)
                            total += 3
                            largest = max(largest, *gaps)
        if differing:
            different[op] = {"part": differing / total, "largest": largest}
        else:
            equal += 1
    return {"equal": equal, "different": different}


def told(comparison):
    """A comparison in words."""
    different = comparison["different"]
    if not different:
        return "all 15 ops give our pixels"
    near = [op for op, found in different.items() if found["largest"] <= 2]
    far = [f"{op} ({100 * found['part']:.2g} %)" for op, found in different.items() if found["largest"] > 2]
    parts = [f"{comparison['equal']} of 15 ops give our pixels"]
    if near:
        parts.append("within 2 of 255: " + ", ".join(near))
    if far:
        parts.append("others, with the part of bytes that differ: " + ", ".join(far))
    return "; ".join(parts)
