"""The words that the demonstration's corpus is made of: invented people, places, and a glossary."""

from __future__ import annotations

from typing import NamedTuple


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


class Person(NamedTuple):
    """An invented person with the pronouns that sentences about them need."""

    name: str
    subject: str
    object: str
    possessive: str


class Term(NamedTuple):
    """A glossary entry: ``A {word} is a {thing} {origin}; it is used {use}.``"""

    word: str
    thing: str
    origin: str
    use: str


_SHE = "Alba Berit Cora Dalia Edda Fenna Gilda Hanne Ilka Juna Kaia Lisbet Mirra Nessa Orla Petra"
_HE = "Anselm Boris Corvin Dario Emeric Falk Goran Henrik Ivo Jonas Kaspar Leon Marek Nilo Osric Pavel"

PEOPLE = tuple(
    [Person(name, "she", "her", "her") for name in _SHE.split()]
    + [Person(name, "he", "him", "his") for name in _HE.split()]
)

TOWNS = _words("Ardel Brimholt Calder Dunmere Eastwick Farrow Glenmor Hollin Istria Karsk Lowen Merrow")

JOBS = _words("baker carpenter teacher gardener sailor nurse farmer painter tailor miller clerk potter")

COLOURS = _words("red blue green yellow white black brown grey purple pink")

MATERIALS = _words("wool silver copper clay leather glass wooden paper")

THINGS = _words("lamp key hat bowl scarf book basket coat clock drum kite ring map bell mirror rope")

GOODS = _words("apples pears plums eggs candles buttons stamps marbles nails seeds cards shells")

HOLDERS = _words("box bag basket tray crate jar")

ANIMALS = _words("goat horse dog cat sheep duck goose rabbit donkey pig")

PLACES = _words("market harbour library mill bridge garden station school bakery square")

WEATHERS = ("cold and clear", "warm and still", "wet and windy", "grey and foggy", "dry and bright")

DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")

MONTHS = (
    ("January", 31),
    ("February", 28),
    ("March", 31),
    ("April", 30),
    ("May", 31),
    ("June", 30),
    ("July", 31),
    ("August", 31),
    ("September", 30),
    ("October", 31),
    ("November", 30),
    ("December", 31),
)

SHORT_WORDS = _words(
    "apple bell boat bread candle chair cloud dance door field fire flute goose grape hammer heart "
    "honey island jacket kettle ladder lemon light mountain needle ocean orange paper pencil "
    "queen river road salt school silver spoon stone storm table tower uncle valley violin water "
    "window winter yarn yellow zebra"
)

CATEGORIES: dict[str, tuple[str, ...]] = {
    "fruits": _words("apple pear plum grape cherry lemon peach fig melon orange"),
    "farm animals": _words("goat horse cow sheep duck goose donkey rabbit pig hen"),
    "tools": _words("hammer saw chisel drill file plane wrench level spade rake"),
    "musical instruments": _words("flute violin drum harp trumpet cello horn piano lute bell"),
    "things to wear": _words("hat coat scarf jacket shirt belt boots gloves cap shawl"),
    "kitchen things": _words("kettle spoon bowl knife pan plate cup jug ladle oven"),
}

GLOSSARY = (
    Term("brill", "small copper lamp", "from the river towns", "to find the deep channel at night"),
    Term("corrin", "long wool scarf", "from the north coast", "to keep the wind out of a boat's cabin"),
    Term("dask", "flat clay dish", "from the salt farms", "to dry herbs in the sun"),
    Term("elvet", "thin silver needle", "from the weavers' guild", "to mend sails without leaving a mark"),
    Term("fennock", "wooden whistle", "from the hill farms", "to call sheep through fog"),
    Term("garrel", "leather bag with two straps", "from the old post road", "to carry letters on horseback"),
    Term("hobbin", "round stone weight", "from the fish market", "to hold nets on the sea bed"),
    Term("istle", "short paper fan", "from the southern islands", "to greet a guest without speaking"),
    Term("jorum", "deep brass bowl", "from the bakers of Calder", "to measure flour for a whole street"),
    Term("keddle", "hooked iron rod", "from the coal barges", "to pull a barge close to the bank"),
    Term("lorn", "song of three verses", "from the mountain villages", "to mark the first snow of the year"),
    Term("marrick", "square of blue cloth", "from the harbour of Merrow", "to show that a ship carries mail"),
    Term("nettam", "bitter green tea", "from the upper valley", "to stay awake during the night watch"),
    Term("orvel", "game of nine stones", "from the miners of Karsk", "to settle a quarrel without a judge"),
    Term("pellow", "narrow glass jar", "from the island of Istria", "to keep honey warm in winter"),
    Term("quill knot", "double loop of rope", "from the rope makers", "to tie a boat to a moving pier"),
    Term("rasket", "bread of rye and nuts", "from the forest inns", "to feed a walker for two days"),
    Term("sollar", "low wooden stage", "from the theatre of Lowen", "to raise a speaker above the crowd"),
    Term("tarn bell", "bell without a tongue", "from the lake monks", "to remind a visitor to be silent"),
    Term("umbrel", "wide straw hat", "from the rice fields", "to shade a sleeping child"),
    Term("vander", "coin cut into halves", "from the border towns", "to seal a promise between two traders"),
    Term("wickett", "small door in a large gate", "from the walls of Ardel", "to let one person in after dark"),
    Term("yarrel", "stick with nine notches", "from the milk farms", "to count the days of a cow's rest"),
    Term("zennet", "red ink made of berries", "from the school of Hollin", "to mark the best work of a pupil"),
)

SENTIMENTS: dict[str, tuple[str, ...]] = {
    "positive": (
        "the service was quick and kind",
        "everything worked on the first day",
        "I would gladly buy it again",
        "it was worth every coin",
        "the whole family loved it",
    ),
    "negative": (
        "the service was slow and rude",
        "it broke on the first day",
        "I want my money back",
        "it was far too expensive",
        "nobody in the family liked it",
    ),
}

REQUESTS = (
    ("close the window", "closing the window"),
    ("send the report today", "sending the report today"),
    ("move your cart", "moving your cart"),
    ("lower your voice", "lowering your voice"),
    ("bring more water", "bringing more water"),
    ("wait outside", "waiting outside"),
    ("pay the bill now", "paying the bill now"),
    ("repeat the question", "repeating the question"),
    ("carry this box upstairs", "carrying this box upstairs"),
    ("show me the map", "showing me the map"),
    ("turn off the lamp", "turning off the lamp"),
    ("answer my letter", "answering my letter"),
)

VERBS = (
    ("carries", "carried", "will carry"),
    ("paints", "painted", "will paint"),
    ("sells", "sold", "will sell"),
    ("finds", "found", "will find"),
    ("loses", "lost", "will lose"),
    ("cleans", "cleaned", "will clean"),
    ("mends", "mended", "will mend"),
    ("brings", "brought", "will bring"),
    ("hides", "hid", "will hide"),
    ("buys", "bought", "will buy"),
)
