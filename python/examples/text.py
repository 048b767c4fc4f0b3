"""Text: extractive summaries, keywords, statistics. Standard library only."""
import re
from collections import Counter

from poold import worker

_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_WORD = re.compile(r"[^\W\d_]+", re.UNICODE)
_STOP = frozenset(
    "a about after all also an and any are as at be because been but by can could did do for from had has have he her him his how i if in "
    "into is it its just like me more most my no not of on one only or other our out over she so some such than that the their them then "
    "there these they this to up us was we were what when which who will with would you your".split())


def _words(text):
    return [w for w in (m.group().lower() for m in _WORD.finditer(text)) if w not in _STOP and len(w) > 2]


@worker.method(idempotent=True)
def summarize(text: str, sentences: int = 3) -> str:
    """The sentences that carry most of the text's frequent words, in their order."""
    parts = [s for s in _SENTENCE.split(text.strip()) if s]
    if len(parts) <= sentences:
        return " ".join(parts)
    weight = Counter(_words(text))
    scores = []
    for position, sentence in enumerate(parts):
        words = _words(sentence)
        score = sum(weight[w] for w in words) / (len(words) + 3) if words else 0.0
        scores.append((-score * (1.15 if position == 0 else 1.0), position))
    chosen = sorted(position for _, position in sorted(scores)[:max(1, sentences)])
    return " ".join(parts[i] for i in chosen)


@worker.method(idempotent=True)
def keywords(text: str, count: int = 10) -> list:
    """[[word, occurrences], ...], the most frequent first."""
    return [[w, n] for w, n in Counter(_words(text)).most_common(count)]


@worker.method(idempotent=True)
def statistics(text: str) -> dict:
    """Characters, words, sentences, distinct words, mean word length."""
    words = [m.group().lower() for m in _WORD.finditer(text)]
    return {
        "characters": len(text),
        "words": len(words),
        "sentences": len([s for s in _SENTENCE.split(text.strip()) if s]),
        "distinct_words": len(set(words)),
        "mean_word_length": round(sum(map(len, words)) / len(words), 3) if words else 0.0,
    }
