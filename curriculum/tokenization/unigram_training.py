"""Learning the pieces of a unigram model (Kudo, 2018): many substrings first, then EM and pruning by loss in turn.

Small and readable where SentencePiece and the `tokenizers` library are fast: the seed is every repeated substring (theirs come from
a suffix array), and the M step is the plain one (theirs damps rare pieces by the digamma function), so that the likelihood of the
corpus never falls between prunings.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable

from curriculum.tokenization.unigram import UnigramModel, words_of

LONGEST = 16  # characters of a piece, and with them:
SEEDS = 10  # candidates for each piece that is wanted
SHRINK = 0.75  # share of the pieces a pruning keeps
EM_STEPS = 2  # between prunings; LONGEST, SHRINK and EM_STEPS are the library's
_FLOOR = 1e-9  # expected count of a character at least, so that every word keeps a spelling; costs that many nats, no more


def train(texts: Iterable[str], size: int, longest: int = LONGEST) -> UnigramModel:
    """A model of at most ``size`` pieces, special tokens not among them. Repeats itself exactly: ties go by code point.

    Raises:
        ValueError: no words, pieces without length, or ``size`` does not hold the characters of the texts.
    """
    frequency = Counter(word for text in texts for word in words_of(text))
    model = seed_model(frequency, SEEDS * size, longest)
    characters = sum(len(piece) == 1 for piece in model.scores)
    if characters > size:
        raise ValueError(f"a vocabulary of {size} cannot hold the {characters} characters of the texts")
    while True:
        for _ in range(EM_STEPS):
            model, _ = em_step(model, frequency)
        if len(model.scores) <= size:
            return model
        model = prune(model, frequency, max(size, int(SHRINK * len(model.scores))))


def seed_model(frequency: Counter[str], size: int, longest: int = LONGEST) -> UnigramModel:
    """All characters, and the substrings that occur twice or more: the ``size`` with the most characters of the corpus in them.

    Raises:
        ValueError: no words, or ``longest`` below 1.
    """
    if not frequency or longest < 1:
        raise ValueError(f"seeding needs words ({len(frequency)} given) and pieces of at least one character ({longest} given)")
    counts: Counter[str] = Counter()
    for word, times in frequency.items():
        for start in range(len(word)):
            for end in range(start + 1, min(start + longest, len(word)) + 1):
                counts[word[start:end]] += times
    single = {piece: count for piece, count in counts.items() if len(piece) == 1}
    longer = {piece: count * len(piece) for piece, count in counts.items() if len(piece) > 1 and count > 1}
    chosen = sorted(longer, key=lambda piece: (-longer[piece], piece))[: max(size - len(single), 0)]
    return _normalised(single | {piece: longer[piece] for piece in chosen})


def em_step(model: UnigramModel, frequency: Counter[str]) -> tuple[UnigramModel, float]:
    """One step of expectation-maximisation, and the log-likelihood of the corpus in nats before it.

    Pieces whose expected count is zero to the machine's precision go. The likelihood after the step is no lower.

    Raises:
        ValueError: a word has a character that is no piece.
    """
    expected: dict[str, float] = defaultdict(float)
    likelihood = 0.0
    for word, times in frequency.items():
        counts, log_probability = model.expected_counts(word)
        likelihood += times * log_probability
        for piece, count in counts.items():
            expected[piece] += times * count
    floored = {piece: max(expected[piece], _FLOOR) if len(piece) == 1 else expected[piece] for piece in model.scores}
    return _normalised({piece: count for piece, count in floored.items() if count > 0}), likelihood


def prune(model: UnigramModel, frequency: Counter[str], size: int) -> UnigramModel:
    """The model with ``size`` pieces: its characters, and of the others those whose loss would cost the most likelihood.

    Scores stay as they are; the next EM step makes the probabilities sum to 1 again.

    Raises:
        ValueError: ``size`` does not hold the characters, or a piece has a character that is no piece.
    """
    kept = [piece for piece in model.scores if len(piece) == 1]
    if size < len(kept):
        raise ValueError(f"{size} pieces cannot hold the {len(kept)} characters")
    losses = piece_losses(model, frequency)
    kept += sorted(losses, key=lambda piece: (-losses[piece], piece))[: size - len(kept)]
    return UnigramModel({piece: model.scores[piece] for piece in kept})


def piece_losses(model: UnigramModel, frequency: Counter[str]) -> dict[str, float]:
    """For each piece of several characters, the nats the corpus would lose without it, by best segmentations alone.

    Each use of the piece becomes the best segmentation of its text without it, whose pieces grow commoner by these uses. So the
    library reckons too; exact losses would take a pass over the corpus for each piece. A piece never used loses nothing.

    Raises:
        ValueError: a piece has a character that is no piece, so nothing could stand in for it.
    """
    if missing := {character for piece in model.scores for character in piece} - model.scores.keys():
        raise ValueError(f"the characters {sorted(missing)} are no pieces, so pieces with them cannot be pruned")
    uses: Counter[str] = Counter()
    for word, times in frequency.items():
        for piece in model.segment(word):
            uses[piece] += times
    total = uses.total()
    losses = {piece: 0.0 for piece in model.scores if len(piece) > 1}
    for piece in losses.keys() & uses.keys():
        instead = next(tokens for tokens, _ in model.n_best(piece, 2) if tokens != [piece])
        after = total + uses[piece] * (len(instead) - 1)
        spelled = sum(math.log((uses[part] + uses[piece]) / after) for part in instead)
        losses[piece] = uses[piece] * (math.log(uses[piece] / total) - spelled)
    return losses


def log_likelihood(model: UnigramModel, frequency: Counter[str]) -> float:
    """The log-likelihood of the corpus in nats, each word's probability summed over its segmentations.

    Raises:
        ValueError: a word has a character that is no piece.
    """
    return sum(times * model.expected_counts(word)[1] for word, times in frequency.items())


def _normalised(weights: dict[str, float]) -> UnigramModel:
    total = math.log(sum(weights.values()))
    return UnigramModel({piece: math.log(weight) - total for piece, weight in weights.items()})
