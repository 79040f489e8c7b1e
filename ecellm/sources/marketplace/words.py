"""Made-up marketplace: its words. Small on purpose, so that a model from random weights can learn them in minutes."""

from __future__ import annotations

GROUPS = {
    "Electronics": ("headphones", "speaker", "keyboard", "monitor", "router", "charger", "cover", "stand"),
    "Home_and_Kitchen": ("kettle", "toaster", "blender", "pan", "lamp", "filter", "lid", "bulb"),
    "Sports_and_Outdoors": ("tent", "backpack", "helmet", "racket", "kayak", "rope", "grip", "paddle"),
    "Tools_and_Home_Improvement": ("drill", "saw", "ladder", "sander", "vise", "bit", "blade", "clamp"),
    "Cell_Phones_and_Accessories": ("phone", "tablet", "earbuds", "stylus", "holder", "case", "strap", "cable"),
}
"""Amazon category -> product types; the last three are accessories of the others."""
ACCESSORIES = 3

BRANDS = {
    "Electronics": ("Zorvex", "Quillon", "Baxtra", "Nemrik", "Ondrel"),
    "Home_and_Kitchen": ("Mulano", "Verdiq", "Tessop", "Garnoy", "Lumbra"),
    "Sports_and_Outdoors": ("Kestrok", "Ravuno", "Alpquo", "Drifton", "Summar"),
    "Tools_and_Home_Improvement": ("Gruntek", "Boltary", "Ferrok", "Hewnix", "Strado"),
    "Cell_Phones_and_Accessories": ("Pocketu", "Celvane", "Smarvo", "Tappix", "Clipzo"),
}
"""Invented brands of each category."""

NAMED = {
    "color": ("black", "white", "red", "blue", "green", "silver", "pink", "orange"),
    "material": ("steel", "plastic", "wood", "leather", "cotton", "glass", "rubber", "bamboo"),
    "size": ("small", "medium", "large", "mini", "compact", "jumbo"),
    "style": ("modern", "classic", "rustic", "retro"),
    "pattern": ("striped", "dotted", "floral", "plain"),
    "finish": ("matte", "glossy", "brushed", "satin"),
}
MEASURED = {
    "power": ("10 w", "20 w", "40 w", "60 w", "100 w"),
    "capacity": ("250 ml", "500 ml", "750 ml", "900 ml"),
    "length": ("30 cm", "50 cm", "80 cm", "90 cm"),
    "weight": ("2 kg", "4 kg", "6 kg", "8 kg"),
}
ATTRIBUTES = {**NAMED, **MEASURED}
"""Attribute -> its values. Every type has a color, a material and three others."""

STARS = {
    5: (
        "love it", "works perfectly", "excellent quality", "best purchase ever", "amazing product",
        "highly recommend it",
    ),
    4: ("pretty good", "works well overall", "nice but not perfect", "solid choice", "happy with it mostly"),
    3: ("it is okay", "average at best", "neither good nor bad", "just acceptable", "mixed feelings about it"),
    2: ("rather disappointed", "poor quality", "weaker than expected", "would not buy again", "not worth the price"),
    1: ("total waste of money", "broke after one day", "terrible product", "want a refund", "awful and useless"),
}  # fmt: skip
"""What people say at each rating."""
STAR_SHARES = {5: 0.56, 4: 0.17, 3: 0.10, 2: 0.07, 1: 0.10}

CHATTER = (
    "bought this {type} last month", "the {brand} {type} arrived on time", "my sister uses the {type} every day",
    "i needed a {color} {type} for the house", "ordered it for my father", "used it twice this week",
    "the box was a bit damaged", "shipping took four days", "it replaced my old {type}",
    "the {color} looks like the photo",
)  # fmt: skip
"""Review sentences that say nothing of the rating."""

FOREIGN = (
    "este producto es muy bueno para la casa", "sehr gutes produkt fuer den alltag zu hause",
    "produit correct pour la maison et le jardin", "ottimo prodotto per tutti i giorni in casa",
)  # fmt: skip

ASKS = {
    "open": (
        "what is the {attribute} of the {type} {model}?", "which {attribute} does the {brand} {model} have?",
        "can you tell me the {attribute} of {model}?",
        "does anyone know the {attribute} of the {brand} {type} {model}?",
    ),
    "closed": ("is the {attribute} of {model} {value}?", "does the {type} {model} come with {attribute} {value}?"),
}  # fmt: skip
"""Questions name the model, so that no two products' questions are the same text."""
TALKED_OF = {
    "color": 0.9, "material": 0.85, "size": 0.75, "style": 0.7, "power": 0.65,
    "capacity": 0.4, "length": 0.35, "weight": 0.3, "pattern": 0.3, "finish": 0.25,
}  # fmt: skip
"""How often reviews mention an attribute that is asked for: everybody writes about colors, few about weights."""
MENTIONS = (
    "the {attribute} is {value} and that is right for me", "mine has a {attribute} of {value}",
    "{value} is the {attribute} on the label", "i checked and the {attribute} was {value}",
)  # fmt: skip
"""Review snippets that state an attribute."""
SILENT = (
    "shipping was fast and the box was fine", "my {type} came as a gift", "i have used it for two months",
    "customer service answered my mail", "the {brand} manual is short", "no problems with the {type} so far",
)  # fmt: skip
"""Review snippets that state none."""
REPLIES = (
    "the {attribute} is {value}.", "it has a {attribute} of {value}.", "the {attribute} of this {type} is {value}.",
    "{value}, as it says on the label.",
)  # fmt: skip
IDLE_REPLIES = ("sorry, i do not know.", "i returned mine already.", "please ask the seller.")
NAMES = ("Invented Ann", "Invented Bo", "Invented Cy", "Invented Di", "Invented Ed")
