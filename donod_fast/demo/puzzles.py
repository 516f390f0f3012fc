"""The families of questions with one right answer to work out: numbers, dates, lists, code."""

from __future__ import annotations

from random import Random

from donod_fast.demo import words
from donod_fast.demo.draft import Draft, Family


def word_problem(rng: Random) -> Draft:
    """Boxes of goods, some given away; the answer shows its working."""
    who = rng.choice(words.PEOPLE)
    boxes, each = rng.randint(2, 9), rng.randint(2, 9)
    holder, goods = rng.choice(words.HOLDERS), rng.choice(words.GOODS)
    holders = holder + ("es" if holder.endswith("x") else "s")
    given = rng.randint(2, boxes * each - 2) if boxes * each > 4 else 2
    verb, past = rng.choice([("gives away", "gave away"), ("sells", "sold"), ("loses", "lost")])
    total, left = boxes * each, boxes * each - given
    question = rng.choice(
        [
            f"{who.name} has {boxes} {holders} with {each} {goods} each and {verb} {given} of them. "
            f"How many {goods} are left?",
            f"There are {each} {goods} in every {holder}. {who.name} buys {boxes} {holders} and {verb} "
            f"{given} {goods}. How many {goods} does {who.subject} have now?",
            f"How many {goods} does {who.name} keep if {who.subject} owns {boxes} {holders} of {each} "
            f"{goods} and {verb} {given}?",
        ]
    )
    answer = rng.choice(
        [
            f"{boxes} {holders} of {each} {goods} make {boxes} * {each} = {total} {goods}. {who.name} {past} "
            f"{given}, so {total} - {given} = {left} are left. The answer is {left}.",
            f"First, {boxes} * {each} = {total} {goods}. Then {total} - {given} = {left}. The answer is {left}.",
        ]
    )
    return Draft(question, "", answer)


def shopping(rng: Random) -> Draft:
    """The price of two purchases and the change."""
    who, (first, second) = rng.choice(words.PEOPLE), rng.sample(words.THINGS, 2)
    a, b = rng.randint(2, 30), rng.randint(2, 30)
    paid = rng.choice([value for value in (20, 50, 100) if value >= a + b])
    shop = rng.choice(words.PLACES)
    question = rng.choice(
        [
            f"{who.name} buys a {first} for {a} coins and a {second} for {b} coins at the {shop}. "
            f"{who.subject.capitalize()} pays with {paid} coins. How much change does {who.subject} get?",
            f"At the {shop} a {first} costs {a} coins and a {second} costs {b} coins. {who.name} pays {paid} "
            f"coins for both. What is the change?",
        ]
    )
    return Draft(
        question,
        "",
        f"The {first} and the {second} cost {a} + {b} = {a + b} coins together. "
        f"The change is {paid} - {a + b} = {paid - a - b} coins.",
    )


def convert_units(rng: Random) -> Draft:
    """A measure in a smaller unit, with the factor."""
    large, small, factor = rng.choice(
        [
            ("kilometres", "metres", 1000),
            ("metres", "centimetres", 100),
            ("kilograms", "grams", 1000),
            ("centimetres", "millimetres", 10),
            ("hours", "minutes", 60),
            ("minutes", "seconds", 60),
            ("weeks", "days", 7),
            ("dozens", "pieces", 12),
        ]
    )
    amount = rng.randint(2, 12) if factor in (7, 12, 60) else rng.randint(2, 99)
    one = large.removesuffix("s")
    question = rng.choice(
        [
            f"Convert {amount} {large} to {small}.",
            f"How many {small} are {amount} {large}?",
            f"Express {amount} {large} in {small}.",
        ]
    )
    result = amount * factor
    answer = f"One {one} is {factor} {small}, so {amount} {large} are {amount} * {factor} = {result} {small}."
    return Draft(question, "", answer)


def sequence(rng: Random) -> Draft:
    """The next numbers of an arithmetic sequence, with its rule."""
    start, step = rng.randint(1, 30), rng.randint(2, 9)
    shown = [start + step * i for i in range(4)]
    following = [start + step * i for i in range(4, 7)]
    instruction = rng.choice(["Continue the sequence with three more numbers.", "What are the next three numbers?"])
    numbers = ", ".join(map(str, shown))
    return Draft(instruction, numbers, f"Each number is {step} more than the last: {', '.join(map(str, following))}.")


def weekday(rng: Random) -> Draft:
    """The day of the week some days before or after another."""
    start, days = rng.randrange(7), rng.randint(2, 20)
    after = rng.random() < 0.7
    end = words.DAYS[(start + (days if after else -days)) % 7]
    word = "after" if after else "before"
    weeks, rest = divmod(days, 7)
    question = rng.choice(
        [
            f"Which day is {days} days {word} {words.DAYS[start]}?",
            f"Today is {words.DAYS[start]}. What day of the week "
            + (f"will it be in {days} days?" if after else f"was it {days} days ago?"),
        ]
    )
    answer = rng.choice(
        [
            f"{days} = {weeks} * 7 + {rest}, and {rest} days {word} {words.DAYS[start]} is {end}.",
            f"It is {end}, because {days} = {weeks} * 7 + {rest}.",
        ]
    )
    return Draft(question, "", answer)


def calendar(rng: Random) -> Draft:
    """A date some days later, over the end of the month at times."""
    index = rng.randrange(12)
    (month, length), following = words.MONTHS[index], words.MONTHS[(index + 1) % 12][0]
    day, later = rng.randint(1, length), rng.randint(2, 15)
    event = rng.choice(["fair", "ferry", "concert", "meeting", "harvest", "journey"])
    question = rng.choice(
        [
            f"The {event} begins {later} days after {day} {month}. On which date does it begin?",
            f"It is {day} {month} and the {event} is in {later} days. What is its date?",
        ]
    )
    if day + later <= length:
        return Draft(question, "", f"{day} + {later} = {day + later}, so the {event} is on {day + later} {month}.")
    return Draft(
        question,
        "",
        f"{day} + {later} = {day + later}, and {month} has {length} days. {day + later} - {length} = "
        f"{day + later - length}, so the {event} is on {day + later - length} {following}.",
    )


def sort_words(rng: Random) -> Draft:
    """Words put in alphabetical order, or in the reverse of it."""
    items = rng.sample(words.SHORT_WORDS, rng.randint(3, 6))
    backwards = rng.random() < 0.25
    order = "reverse alphabetical order" if backwards else "alphabetical order"
    instruction = rng.choice(
        [f"Sort these words in {order}.", f"Put the words in {order}.", f"Arrange the list in {order}:"]
    )
    return Draft(instruction, ", ".join(items), ", ".join(sorted(items, reverse=backwards)))


def reverse_list(rng: Random) -> Draft:
    """A list read from its end."""
    items = rng.sample(words.SHORT_WORDS, rng.randint(3, 7))
    instruction = rng.choice(
        ["Reverse the order of this list.", "Write these words from last to first.", "Turn the list around:"]
    )
    return Draft(instruction, " ".join(items), " ".join(reversed(items)))


def count_words(rng: Random) -> Draft:
    """How often a word stands in a list: a short answer, sometimes one word."""
    target, *others = rng.sample(words.ANIMALS, 4)
    times = rng.randint(1, 5)
    items = [target] * times + rng.choices(others, k=rng.randint(2, 6))
    rng.shuffle(items)
    if rng.random() < 0.5:
        instruction = f"How many times does the word '{target}' appear? Answer with a number only."
        return Draft(instruction, " ".join(items), str(times))
    instruction = rng.choice(
        [f"Count the word '{target}' in the list.", f"How often is '{target}' written in this list?"]
    )
    unit = "time" if times == 1 else "times"
    return Draft(instruction, " ".join(items), f"The word '{target}' appears {times} {unit}.")


def compare(rng: Random) -> Draft:
    """Who comes first among three people, from two comparisons."""
    a, b, c = (person.name for person in rng.sample(words.PEOPLE, 3))
    more, most, least = rng.choice(
        [("older", "oldest", "youngest"), ("taller", "tallest", "shortest"), ("faster", "fastest", "slowest")]
    )
    facts = [f"{a} is {more} than {b}.", f"{b} is {more} than {c}."]
    rng.shuffle(facts)
    wanted, answer = rng.choice([(most, a), (least, c)])
    question = rng.choice([f"Who is the {wanted}?", f"Which of the three is the {wanted}?"])
    if rng.random() < 0.4:
        return Draft(f"{question} Answer with the name only.", " ".join(facts), answer)
    reason = f"{a} is {more} than {b} and {b} is {more} than {c}"
    return Draft(question, " ".join(facts), f"{reason}, so the {wanted} is {answer}.")


def code(rng: Random) -> Draft:
    """A small Python function of a few families."""
    name = rng.choice(["numbers", "values", "items", "data"])
    n = rng.randint(2, 20)
    task, function, body = rng.choice(
        [
            (f"adds {n} to each element of a list", f"add_{n}", f"[x + {n} for x in {name}]"),
            (f"multiplies each element of a list by {n}", f"times_{n}", f"[x * {n} for x in {name}]"),
            (f"keeps the elements of a list above {n}", f"above_{n}", f"[x for x in {name} if x > {n}]"),
            (f"keeps the elements of a list below {n}", f"below_{n}", f"[x for x in {name} if x < {n}]"),
            (f"returns the first {n} elements of a list", f"first_{n}", f"{name}[:{n}]"),
            (f"returns the last {n} elements of a list", f"last_{n}", f"{name}[-{n}:]"),
            (f"counts the elements of a list equal to {n}", f"count_{n}", f"{name}.count({n})"),
            (f"tells whether {n} is in a list", f"has_{n}", f"{n} in {name}"),
        ]
    )
    instruction = rng.choice(
        [
            f"Write a Python function that {task}. Call the argument {name}.",
            f"I need a function in Python with one argument named {name} that {task}.",
        ]
    )
    output = f"def {function}({name}):\n    return {body}"
    if rng.random() < 0.5:
        output = f'def {function}({name}):\n    """This function {task}."""\n    return {body}'
    return Draft(instruction, "", output)


FAMILIES: dict[str, Family] = {
    "word_problem": word_problem,
    "shopping": shopping,
    "convert_units": convert_units,
    "sequence": sequence,
    "weekday": weekday,
    "calendar": calendar,
    "sort_words": sort_words,
    "reverse_list": reverse_list,
    "count_words": count_words,
    "compare": compare,
    "code": code,
}
