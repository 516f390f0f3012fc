"""The language of a text by langdetect, the same at every call.

langdetect draws at random, unless it has a seed. The seed is set on each detector, so that other users of langdetect in
this process keep theirs.
"""

from __future__ import annotations

from donod_fast.evaluation.harness.requirements import imported


def detect_language(text: str) -> str | None:
    """ISO 639-1 code of a text's language (``zh-cn`` and ``zh-tw`` for Chinese); None if the text has no letters.

    Raises:
        InputError: langdetect is not installed.
    """
    langdetect = imported("langdetect", "langdetect")
    factory = imported("langdetect.detector_factory", "langdetect")
    factory.init_factory()
    detector = factory._factory.create()
    detector.seed = 0
    try:
        detector.append(text)
        return str(detector.detect())
    except langdetect.LangDetectException:
        return None


def languages() -> frozenset[str]:
    """All codes that :func:`detect_language` can return."""
    factory = imported("langdetect.detector_factory", "langdetect")
    factory.init_factory()
    return frozenset(factory._factory.get_lang_list())


__all__ = ["detect_language", "languages"]
