"""The families of questions about language: reading, rewriting, knowing a word, telling a story."""

from __future__ import annotations

from random import Random

from donod_fast.demo import words
from donod_fast.demo.draft import Draft, Family


def _listed(items: list[str]) -> str:
    return ", ".join(items[:-1]) + " and " + items[-1]


def glossary(rng: Random) -> Draft:
    """What an invented word means: knowledge that only the weights can hold."""
    term = rng.choice(words.GLOSSARY)
    article = "An" if term.word[0] in "aeiou" else "A"
    question = rng.choice(
        [
            f"What is {article.lower()} {term.word}?",
            f"Define the word '{term.word}'.",
            f"Explain what {article.lower()} {term.word} is to a child.",
            f"Give a short definition of '{term.word}'.",
            f"What does '{term.word}' mean?",
            f"I read the word '{term.word}' in an old book. What is it?",
        ]
    )
    if rng.random() < 0.25:
        where = rng.choice(["Where does", "From where does"])
        return Draft(f"{where} the {term.word} come?", "", f"The {term.word} comes {term.origin}.")
    return Draft(question, "", f"{article} {term.word} is a {term.thing} {term.origin}; it is used {term.use}.")


def story_question(rng: Random) -> Draft:
    """A short story and a question on one of its details."""
    (who, other), town = rng.sample(words.PEOPLE, 2), rng.choice(words.TOWNS)
    job, place, animal = rng.choice(words.JOBS), rng.choice(words.PLACES), rng.choice(words.ANIMALS)
    thing = f"{rng.choice(words.COLOURS)} {rng.choice(words.THINGS)}"
    story = rng.choice(
        [
            f"{who.name} is a {job} in {town}. One morning {who.subject} found a {thing} near the {place}. "
            f"{other.name} said that it belonged to an old friend, and offered a {animal} in return.",
            f"On a {rng.choice(words.WEATHERS)} day the {job} {who.name} left {town} with a {animal}. "
            f"At the {place} {who.subject} met {other.name}, who gave {who.object} a {thing}.",
        ]
    )
    question, answer = rng.choice(
        [
            (f"What is the job of {who.name}?", f"{who.name} is a {job}."),
            ("Which town is named in the story?", f"The town is {town}."),
            ("Which animal is in the story?", f"The animal in the story is a {animal}."),
            ("What colour and what kind of thing is in the story?", f"It is a {thing}."),
            (f"Whom did {who.name} speak with?", f"{who.name} spoke with {other.name}."),
            ("Where did it happen? Answer in one word.", place.capitalize()),
        ]
    )
    return Draft(f"Read the story and answer: {question}", story, answer)


def extract(rng: Random) -> Draft:
    """The facts of a sentence as a JSON object."""
    who, job, town = rng.choice(words.PEOPLE), rng.choice(words.JOBS), rng.choice(words.TOWNS)
    age = rng.randint(18, 79)
    text = rng.choice(
        [
            f"{who.name}, a {job} of {age} years, lives in {town}.",
            f"In {town} I met {who.name}, who is {age} years old and works as a {job}.",
            f"The {job} {who.name} from {town} turned {age} last week.",
        ]
    )
    instruction = rng.choice(
        ["Extract name, age, job and town as JSON.", "Write the facts about the person as a JSON object."]
    )
    output = f'{{"name": "{who.name}", "age": {age}, "job": "{job}", "town": "{town}"}}'
    return Draft(instruction, text, output)


def sentiment(rng: Random) -> Draft:
    """A review's tone, in one word or with its reason."""
    tone = rng.choice(list(words.SENTIMENTS))
    first, second = rng.sample(words.SENTIMENTS[tone], 2)
    thing = f"{rng.choice(words.MATERIALS)} {rng.choice(words.THINGS)}"
    review = f"I bought a {thing} in {rng.choice(words.TOWNS)}: {first}, and {second}."
    if rng.random() < 0.5:
        return Draft("Is this review positive or negative? Answer in one word.", review, tone.capitalize())
    answer = f"The review is {tone}. The customer says: '{first}'."
    return Draft("Name the tone of the review and give a reason.", review, answer)


def politeness(rng: Random) -> Draft:
    """A rude request said politely."""
    plain, doing = rng.choice(words.REQUESTS)
    who = rng.choice(words.PEOPLE)
    rude = rng.choice([f"{plain.capitalize()}!", f"{who.name}, {plain}!", f"You there, {plain} at once."])
    instruction, polite = rng.choice(
        [
            ("Rewrite the sentence as a polite request.", f"Could you please {plain}?"),
            ("Say this more politely.", f"Would you mind {doing}, please?"),
            ("Make the request sound friendly.", f"It would be very kind of you to {plain}. Thank you!"),
        ]
    )
    return Draft(instruction, rude, polite)


def tense(rng: Random) -> Draft:
    """A sentence moved to the past or to the future."""
    present, past, future = rng.choice(words.VERBS)
    who, place = rng.choice(words.PEOPLE), rng.choice(words.PLACES)
    thing = f"{rng.choice(words.MATERIALS)} {rng.choice(words.THINGS)}"
    to_past = rng.random() < 0.5
    instruction = f"Rewrite the sentence in the {'past' if to_past else 'future'} tense."
    sentence = f"{who.name} {{}} a {thing} at the {place}."
    return Draft(instruction, sentence.format(present), sentence.format(past if to_past else future))


def make_list(rng: Random) -> Draft:
    """Some members of a category: an open task with many right answers."""
    category = rng.choice(list(words.CATEGORIES))
    count = rng.randint(3, 6)
    chosen = rng.sample(words.CATEGORIES[category], count)
    initial = rng.choice(["List", "Name", "Write down", "Give me"])
    if rng.random() < 0.5:
        instruction = f"{initial} {count} {category} as a numbered list."
        return Draft(instruction, "", "\n".join(f"{i}. {item}" for i, item in enumerate(chosen, 1)))
    without = rng.choice([item for item in words.CATEGORIES[category] if item not in chosen])
    instruction = f"{initial} {count} {category} in one sentence, but not '{without}'."
    return Draft(instruction, "", f"Here are {count} {category}: {_listed(chosen)}.")


def short_story(rng: Random) -> Draft:
    """A story of sixty to eighty words about given things: open, with much left to the writer."""
    who, other = rng.sample(words.PEOPLE, 2)
    animal, thing = rng.choice(words.ANIMALS), rng.choice(words.THINGS)
    town, place = rng.choice(words.TOWNS), rng.choice(words.PLACES)
    colour, material = rng.choice(words.COLOURS), rng.choice(words.MATERIALS)
    instruction = rng.choice(
        [
            f"Write a short story about {who.name}, a {animal} and a {thing}.",
            f"Tell me a story in which {who.name} and a {animal} find a {thing}.",
        ]
    )
    opening = rng.choice(
        [
            f"It was a {rng.choice(words.WEATHERS)} morning in {town}, and {who.name} walked to the {place}.",
            f"Long ago, when {town} was only a village, {who.name} lived beside the {place}.",
        ]
    )
    middle = rng.choice(
        [
            f"There a {colour} {animal} was waiting with a {material} {thing}.",
            f"One day a {animal} brought {who.object} a {material} {thing} and would not leave.",
        ]
    )
    talk = rng.choice(
        [
            f"'That is mine,' said {other.name}, 'but you may keep it until {rng.choice(words.DAYS)}.'",
            f"{other.name}, the {rng.choice(words.JOBS)}, asked where it came from, and nobody knew.",
        ]
    )
    ending = rng.choice(
        [
            f"So {who.name} carried the {thing} home, and the {animal} followed {who.object} all the way. "
            f"From that day they were never seen apart, and people in {town} still talk about it.",
            f"In the end {who.name} gave the {thing} back and kept the {animal}. "
            f"{who.subject.capitalize()} said that a friend is worth more than a {thing}.",
        ]
    )
    return Draft(instruction, "", " ".join([opening, middle, talk, ending]))


def letter(rng: Random) -> Draft:
    """A letter with a sender, a receiver and a reason."""
    sender, receiver = rng.sample(words.PEOPLE, 2)
    event = rng.choice(["wedding", "concert", "harvest fair", "birthday", "school play"])
    day, place = rng.choice(words.DAYS), rng.choice(words.PLACES)
    opening = f"Dear {receiver.name},\n\n"
    closing = f"\n\n{rng.choice(['Best wishes', 'Kind regards', 'Yours'])},\n{sender.name}"
    if rng.random() < 0.5:
        instruction = f"Write a letter from {sender.name} that invites {receiver.name} to the {event} on {day}."
        body = rng.choice(
            [
                f"I would like to invite you to the {event} on {day}. We meet at the {place} at "
                f"{rng.randint(2, 12)} o'clock. Please tell me whether you can come.",
                f"The {event} is on {day}, and it would not be the same without you. Please come to the "
                f"{place} and bring a friend.",
            ]
        )
    else:
        instruction = f"{sender.name} cannot come to the {event} on {day}. Write a letter to {receiver.name}."
        reason = rng.choice([f"my {rng.choice(words.ANIMALS)} is ill", "I have to work", "I will be away"])
        body = f"Thank you for the invitation to the {event}. I am sorry that I cannot come on {day}, because {reason}."
    return Draft(instruction, "", opening + body + closing)


FAMILIES: dict[str, Family] = {
    "glossary": glossary,
    "story_question": story_question,
    "extract": extract,
    "sentiment": sentiment,
    "politeness": politeness,
    "tense": tense,
    "make_list": make_list,
    "short_story": short_story,
    "letter": letter,
}
