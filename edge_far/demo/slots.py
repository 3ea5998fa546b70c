"""The words that fill the slots of the demo's phrasings; some are kept for evaluation and test only.

Every filler of a slot is singular and fits every phrasing that names the slot, so that no filled sentence
breaks grammar. A phrasing that only suits some words writes them as a choice instead.
"""

from __future__ import annotations

__all__ = ["fillers"]

# Slot -> words of every split.
_COMMON = {
    "room": (
        "kitchen",
        "living room",
        "bedroom",
        "bathroom",
        "hallway",
        "office",
        "dining room",
        "basement",
        "guest room",
        "playroom",
    ),
    "lamp": ("light", "lamp", "ceiling light", "floor lamp", "reading lamp", "table lamp"),
    "percent": ("10", "15", "20", "25", "30", "thirty", "twenty", "ten"),
    "degrees": ("two", "three", "four", "2", "3", "1.5"),
    "temperature": ("18", "19", "20", "21", "22", "twenty"),
    "time": (
        "6 am",
        "7 am",
        "five thirty",
        "six thirty",
        "half past six",
        "quarter to eight",
        "quarter past seven",
        "5:45",
        "6:15",
        "7:20",
        "eight o'clock",
        "seven in the morning",
    ),
    "day": ("tomorrow", "on Monday", "on Tuesday", "on Thursday", "on Saturday", "this weekend"),
    "weekday": ("Monday", "Tuesday", "Thursday", "Saturday", "tomorrow"),
    "event": ("flight", "meeting", "exam", "train", "interview", "appointment"),
    "audio": ("music", "radio", "tv", "podcast", "film", "audiobook"),
    "door": (
        "front door",
        "back door",
        "garage door",
        "side door",
        "cellar door",
        "patio door",
        "main door",
        "shed door",
    ),
    "person": (
        "my mum",
        "the plumber",
        "my neighbour",
        "the babysitter",
        "my sister",
        "the cleaner",
        "our guest",
        "my son",
    ),
}

# Slot -> split -> words that no other split has.
_RESERVED = {
    "room": {"eval": ("nursery", "utility room"), "test": ("study", "attic", "laundry room", "den")},
    "lamp": {"eval": ("wall light",), "test": ("bedside lamp", "desk lamp", "chandelier")},
    "time": {"eval": ("6:50",), "test": ("ten to seven", "5 am", "8:10")},
    "day": {"eval": ("on Wednesday",), "test": ("on Friday", "the day after tomorrow")},
    "weekday": {"eval": ("Wednesday",), "test": ("Friday", "Sunday")},
    "event": {"eval": ("class",), "test": ("job interview", "dentist appointment", "ferry")},
    "audio": {"eval": ("playlist",), "test": ("stereo", "speaker", "show")},
    "door": {"eval": ("kitchen door",), "test": ("porch door", "balcony door", "terrace door")},
    "person": {"eval": ("the electrician",), "test": ("the courier", "my uncle", "the nurse")},
}


def fillers(slot: str, split: str) -> tuple[str, ...]:
    """Return the words of a slot in a split: the common ones, then those of this split alone."""
    return _COMMON[slot] + _RESERVED.get(slot, {}).get(split, ())
