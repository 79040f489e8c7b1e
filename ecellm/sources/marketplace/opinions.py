"""MADE UP: review texts of the invented marketplace, from a rating.

Not a model of how people write. One decision to know: words of feeling follow the rating, but one review in eight
mixes in a neighbouring rating's words, some say "not", and a few stars disagree with their text.
"""

from __future__ import annotations

from ecellm.sources.marketplace.draws import pick, split_uniform
from ecellm.sources.marketplace.world import Item

RATING_SHARES = (0.10, 0.06, 0.09, 0.17, 0.58)
"""One to five stars."""
MIXED = 0.12
MISJUDGED = 0.06
FEELINGS = (
    ("terrible", "awful", "useless", "horrible", "not good at all", "a total waste"),
    ("disappointing", "weak", "poor", "rather bad", "not what i wanted", "below hopes"),
    ("okay", "average", "fair", "so so", "neither good nor bad", "just usable"),
    ("good", "nice", "solid", "quite useful", "pretty decent", "not bad at all"),
    ("perfect", "excellent", "amazing", "wonderful", "the best", "simply great"),
)
"""What people say of a part of the product, one to five stars."""
VERDICTS = (
    ("it broke and i want my money back", "never buy this again", "i hate it and sent it back"),
    ("i would not buy it again", "it stopped after a week", "not worth the price"),
    ("it does the job and no more", "could be better for the price", "three stars from me"),
    ("happy with it but one small flaw", "i like it and it works", "would buy again for the price"),
    ("i love it and use it every day", "highly recommend to everyone", "works great and my family loves it"),
)
SUMMARIES = (
    ("One Star", "Do not buy"), ("Two Stars", "Not happy"), ("Three Stars", "It is okay"),
    ("Four Stars", "Good"), ("Five Stars", "Love it"),
)  # fmt: skip
OPENINGS = ("bought this {}", "got the {}", "my new {}", "this {}", "i ordered the {}", "we use the {}")
SETTINGS = ("last month", "for my home", "as a gift", "for my son", "for a trip", "some weeks ago")
PARTS = ("quality", "look", "price", "feel", "size", "build")
FOREIGN = (
    "muy buen producto llegó rápido y funciona como dice la página, lo compraría otra vez sin duda",
    "el producto es malo y no funciona, quiero mi dinero de vuelta, no lo recomiendo a nadie",
    "sehr gutes Produkt und schnelle Lieferung, ich bin zufrieden und würde es wieder kaufen",
)
SHORT = ("ok", "good", "five stars", "nice", "bad")


def stars(uniform: float) -> int:
    """A rating, one to five, by the shares above."""
    total = 0.0
    for rating, share in enumerate(RATING_SHARES, 1):
        total += share
        if uniform < total:
            return rating
    return 5


def neighbour(rating: int, uniform: float) -> int:
    """A rating one star away."""
    return min(5, max(1, rating + (1 if uniform < 0.5 else -1))) if 1 < rating < 5 else 2 if rating == 1 else 4


def review(item: Item, felt: int, u: list[float]) -> str:
    """Ten to twenty-five words on an item, by somebody who felt like `felt` stars. Uses ten uniform numbers."""
    second = neighbour(felt, u[1]) if u[0] < MIXED else felt
    which, rest = split_uniform(u[2], len(PARTS))
    other = PARTS[(which + 1 + int(rest * (len(PARTS) - 1))) % len(PARTS)]
    opening = f"{pick(OPENINGS, u[3]).format(item.word)} {pick(SETTINGS, u[4])}"
    first = f"the {PARTS[which]} is {pick(FEELINGS[felt - 1], u[5])}"
    more = f"the {other} is {pick(FEELINGS[second - 1], u[6])}"
    verdict = pick(VERDICTS[felt - 1], u[7])
    form = int(u[8] * 4)
    if form == 0:
        return f"{opening}. {first} and {more}"
    if form == 1:
        return f"{opening}, {first}. {verdict}."
    if form == 2:
        return f"{verdict}. {opening} and {more}."
    return f"{opening}: {first}, {more}! {verdict}"


def summary(felt: int, uniform: float) -> str:
    return pick(SUMMARIES[felt - 1], uniform)
