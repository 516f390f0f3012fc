"""Responses that follow an instruction of IFEval, and responses that do not: the oracle of the checks' tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from random import Random
from typing import Any

ENGLISH = "the weather in the north of this country is often cold and people stay at home with their families"
FOREIGN = {
    "de": "Heute ist das Wetter in unserer Stadt sehr schön und wir gehen mit den Kindern in den Park.",
    "fr": "Le temps est très beau aujourd'hui dans notre ville et nous allons au parc avec les enfants.",
    "es": "Hoy hace muy buen tiempo en nuestra ciudad y vamos al parque con los niños y la abuela.",
    "it": "Oggi il tempo è molto bello nella nostra città e andiamo al parco con i bambini e la nonna.",
    "pt": "Hoje o tempo está muito bom na nossa cidade e vamos ao parque com as crianças e a avó.",
    "ru": "Сегодня в нашем городе очень хорошая погода и мы идём в парк вместе с детьми.",
    "bg": "Днес времето в нашия град е много хубаво и отиваме в парка с децата и с баба им.",
    "uk": "Сьогодні в нашому місті дуже гарна погода і ми йдемо до парку разом з дітьми.",
    "hi": "आज हमारे शहर में मौसम बहुत अच्छा है और हम बच्चों के साथ पार्क जा रहे हैं।",
    "mr": "आज आमच्या शहरात हवामान खूप छान आहे आणि आम्ही मुलांसोबत उद्यानात जात आहोत.",
    "ne": "आज हाम्रो सहरमा मौसम धेरै राम्रो छ र हामी बच्चाहरूसँग पार्क जाँदैछौं।",
    "bn": "আজ আমাদের শহরে আবহাওয়া খুব ভালো এবং আমরা বাচ্চাদের সাথে পার্কে যাচ্ছি।",
    "kn": "ಇಂದು ನಮ್ಮ ನಗರದಲ್ಲಿ ಹವಾಮಾನ ತುಂಬಾ ಚೆನ್ನಾಗಿದೆ ಮತ್ತು ನಾವು ಮಕ್ಕಳೊಂದಿಗೆ ಉದ್ಯಾನವನಕ್ಕೆ ಹೋಗುತ್ತಿದ್ದೇವೆ.",
    "te": "ఈ రోజు మా నగరంలో వాతావరణం చాలా బాగుంది మరియు మేము పిల్లలతో పార్కుకు వెళ్తున్నాము.",
    "ta": "இன்று எங்கள் நகரத்தில் வானிலை மிகவும் நன்றாக உள்ளது, நாங்கள் குழந்தைகளுடன் பூங்காவிற்கு செல்கிறோம்.",
    "gu": "આજે અમારા શહેરમાં હવામાન ખૂબ સારું છે અને અમે બાળકો સાથે પાર્કમાં જઈ રહ્યા છીએ.",
    "pa": "ਅੱਜ ਸਾਡੇ ਸ਼ਹਿਰ ਵਿੱਚ ਮੌਸਮ ਬਹੁਤ ਵਧੀਆ ਹੈ ਅਤੇ ਅਸੀਂ ਬੱਚਿਆਂ ਨਾਲ ਪਾਰਕ ਜਾ ਰਹੇ ਹਾਂ।",
    "ur": "آج ہمارے شہر میں موسم بہت اچھا ہے اور ہم بچوں کے ساتھ پارک جا رہے ہیں۔",
    "fa": "امروز هوای شهر ما خیلی خوب است و ما با بچه‌ها به پارک می‌رویم.",
    "ar": "الطقس جميل جدا اليوم في مدينتنا ونحن ذاهبون إلى الحديقة مع الأطفال.",
    "th": "วันนี้อากาศในเมืองของเราดีมากและเรากำลังไปสวนสาธารณะกับเด็กๆ",
    "vi": "Hôm nay thời tiết ở thành phố của chúng tôi rất đẹp và chúng tôi đi công viên với các con.",
    "ko": "오늘 우리 도시의 날씨가 매우 좋아서 우리는 아이들과 함께 공원에 갑니다.",
    "ja": "今日は私たちの町の天気がとても良いので、子供たちと一緒に公園に行きます。",
    "fi": "Tänään kaupungissamme on erittäin kaunis sää ja menemme puistoon lasten kanssa.",
    "sw": "Leo hali ya hewa katika mji wetu ni nzuri sana na tunakwenda bustanini pamoja na watoto wetu.",
    "pl": "Dzisiaj pogoda w naszym mieście jest bardzo ładna i idziemy do parku z dziećmi.",
}
"""A sentence in each of the languages that the benchmark asks for, and a few more."""


def _times(word: str, number: int, gap: str = " ") -> str:
    return gap.join([word] * number)


_PLAIN = "0 1 2 3"
"""A text without letters."""


def following(kind: str, arguments: Mapping[str, Any]) -> str:
    """A response that follows an instruction."""
    a = arguments
    enough = {"less than": -1, "at least": 0}
    match kind:
        case "keywords:existence":
            return "It is about " + " and ".join(one.upper() for one in a["keywords"])
        case "keywords:frequency":
            return _times(a["keyword"], max(0, a["frequency"] + enough[a["relation"]])) or _PLAIN
        case "keywords:forbidden_words":
            return "It is about " + " ".join(f"x{one}" for one in a["forbidden_words"])
        case "keywords:letter_frequency":
            return "0" + a["letter"].upper() * max(0, a["let_frequency"] + enough[a["let_relation"]])
        case "language:response_language":
            return FOREIGN.get(a["language"], ENGLISH)
        case "length_constraints:number_sentences":
            return _times("It is so.", max(1, a["num_sentences"] + enough[a["relation"]]))
        case "length_constraints:number_paragraphs":
            return _times("A text.", a["num_paragraphs"], "\n***\n")
        case "length_constraints:number_words":
            return _times("word", max(1, a["num_words"] + enough[a["relation"]]))
        case "length_constraints:nth_paragraph_first_word":
            texts = ["A text."] * a["num_paragraphs"]
            texts[a["nth_paragraph"] - 1] = f'"{a["first_word"].title()}, it is.'
            return "\n\n".join(texts)
        case "detectable_content:number_placeholders":
            return _times("[name]", a["num_placeholders"])
        case "detectable_content:postscript":
            return f"A text.\n{a['postscript_marker'].lower()} and more."
        case "detectable_format:number_bullet_lists":
            return "Points:\n" + _times("* one", a["num_bullets"], "\n")
        case "detectable_format:constrained_response":
            return "Well: My answer is maybe."
        case "detectable_format:number_highlighted_sections":
            return _times("*this* and", a["num_highlights"])
        case "detectable_format:multiple_sections":
            return "\n".join(f"{a['section_spliter']} {at}\nA text." for at in range(1, a["num_sections"] + 1))
        case "detectable_format:json_format":
            return "```json\n" + json.dumps({"text": ["A", 1]}) + "\n```"
        case "detectable_format:title":
            return "<<a title>>\nA text."
        case "combination:two_responses":
            return "One.\n******\nTwo."
        case "combination:repeat_prompt":
            return a["prompt_to_repeat"].upper() + "\nAn answer."
        case "startend:end_checker":
            return f'"A text. {a["end_phrase"].upper()}"'
        case "startend:quotation":
            return '"A text."'
        case "change_case:capital_word_frequency":
            number = max(0, a["capital_frequency"] + enough[a["capital_relation"]])
            return _times("GOOD", number) + " day"
        case "change_case:english_capital":
            return ENGLISH.upper()
        case "change_case:english_lowercase":
            return ENGLISH
        case "punctuation:no_comma":
            return "A text; no more."
    raise AssertionError(kind)


def breaking(kind: str, arguments: Mapping[str, Any]) -> str:
    """A response, not blank, that does not follow an instruction."""
    a = arguments
    missed = {"less than": 0, "at least": -1}
    match kind:
        case "keywords:existence":
            return "0 " + " | ".join(sorted(a["keywords"], key=len)[:-1])  # no shorter one contains the longest
        case "keywords:frequency":
            return _times(a["keyword"], max(0, a["frequency"] + missed[a["relation"]])) or _PLAIN
        case "keywords:forbidden_words":
            return f'It is about "{a["forbidden_words"][-1].upper()}".'
        case "keywords:letter_frequency":
            return "0" + a["letter"] * max(0, a["let_frequency"] + missed[a["let_relation"]])
        case "language:response_language":
            return FOREIGN["de"] if a["language"] != "de" else FOREIGN["fi"]
        case "length_constraints:number_sentences":
            return _times("Is it so?", max(0, a["num_sentences"] + missed[a["relation"]])) or "\n"
        case "length_constraints:number_paragraphs":
            return _times("A text.", a["num_paragraphs"] + 1, "***")
        case "length_constraints:number_words":
            return _times("word", max(0, a["num_words"] + missed[a["relation"]])) or "?"
        case "length_constraints:nth_paragraph_first_word":
            texts = ["A text."] * a["num_paragraphs"]
            texts[a["nth_paragraph"] - 1] = f"So {a['first_word']} it is."
            return "\n\n".join(texts)
        case "detectable_content:number_placeholders":
            return _times("[name]", a["num_placeholders"] - 1) + " [open\n]"
        case "detectable_content:postscript":
            return "A text. PS: more."
        case "detectable_format:number_bullet_lists":
            return "Points:\n" + _times("- one", a["num_bullets"] + 1, "\n")
        case "detectable_format:constrained_response":
            return "My answer is perhaps."
        case "detectable_format:number_highlighted_sections":
            return _times("**this** and", a["num_highlights"] - 1) + " ** ** *"
        case "detectable_format:multiple_sections":
            return "\n".join(f"{a['section_spliter']} {at}\nA text." for at in range(1, a["num_sections"])) or "A text."
        case "detectable_format:json_format":
            return 'Here it is: {"text": 1}'
        case "detectable_format:title":
            return "<< >> <<\na title>>"
        case "combination:two_responses":
            return "One.\n******\nOne."
        case "combination:repeat_prompt":
            return "Sure: " + a["prompt_to_repeat"]
        case "startend:end_checker":
            return f"{a['end_phrase']} And more."
        case "startend:quotation":
            return '"A text." he said'
        case "change_case:capital_word_frequency":
            number = max(0, a["capital_frequency"] + missed[a["capital_relation"]])
            return _times("GOOD", number) + " day"
        case "change_case:english_capital":
            return FOREIGN["de"].upper()
        case "change_case:english_lowercase":
            return ENGLISH.capitalize()
        case "punctuation:no_comma":
            return "A text, and more."
    raise AssertionError(kind)


_PIECES = (
    'Dr. Smith said "no", e.g. at 3.5 p.m. He left.',
    "* one\n* two\n- three",
    "*\n* a",
    "**bold** and *light*",
    "***",
    "\n\n",
    "******",
    "<<title>>",
    "P.S. more",
    "P. P. S. more",
    "p.p.s",
    "[name] [",
    "Section 1",
    "SECTION 2:",
    "```json",
    '{"a": 1}',
    "```",
    "My answer is yes.",
    "U.S. NASA's X-RAY A.B. END.",
    "can't WON'T I'M",
    "Is it? Yes! Well...",
    "\n",
    " ",
    "the word unfortunately stands",
    "ENGLISH TEXT IN CAPITALS IS HERE",
    'don\'t "quote"',
    "#!#",
    "- - -\n---",
    "…",
    "日本語の文。",
)


def jumbled(random: Random, arguments: Mapping[str, Any]) -> str:
    """A text of pieces that the checks look at, in which an instruction's own words occur too."""
    own = [str(one) for value in arguments.values() for one in (value if isinstance(value, list) else [value])]
    pieces = random.choices((*_PIECES, *own, *map(str.upper, own)), k=random.randint(1, 12))
    return "".join(piece + random.choice((" ", "\n", "", "\n\n", ". ")) for piece in pieces)


__all__ = ["ENGLISH", "FOREIGN", "breaking", "following", "jumbled"]
