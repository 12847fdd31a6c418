"""Agreement of sentences with a number: "1 image is rotated", "2 images are rotated"."""

import re

_NOUNS = {
    "annotations": "annotation", "boxes": "box", "classes": "class", "detections": "detection",
    "evaluations": "evaluation", "fields": "field", "files": "file", "folders": "folder", "frames": "frame",
    "images": "image", "names": "name", "objects": "object", "pairs": "pair", "splits": "split", "steps": "step",
}  # fmt: skip
_VERBS = {
    "are": "is", "contain": "contains", "count": "counts", "differ": "differs", "do": "does", "have": "has",
    "lack": "lacks", "reach": "reaches", "repeat": "repeats", "were": "was", "their": "its",
}  # fmt: skip
_PRONOUNS = {"them": "it", "they are": "it is", "they mark": "it marks"}


def format_count(number: int, sentence: str) -> str:
    """Return a number followed by a sentence that is written for several things, changed to the singular for 1.

    The sentence begins with the things, such as "images have no label file". Up to a comma or semicolon, the first noun
    and all verbs are changed; after it, only pronouns. The words are those of the messages of this package.
    """
    if number != 1:
        return f"{number} {sentence}"
    clause, end, rest = re.fullmatch(r"([^,;]*)([,;]?)(.*)", sentence, re.DOTALL).groups()  # type: ignore[union-attr]
    words = clause.split(" ")
    first = next((position for position, word in enumerate(words) if word in _NOUNS), 0)
    nouns = {first, first + 2} if words[first + 1 : first + 2] == ["or"] else {first}
    words = [_NOUNS.get(word, word) if k in nouns else _VERBS.get(word, word) for k, word in enumerate(words)]
    for plural, singular in _PRONOUNS.items():
        rest = re.sub(rf"\b{plural}\b", singular, rest)
    return f"1 {' '.join(words)}{end}{rest}"
