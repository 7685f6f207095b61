"""How good translations are: BLEU and chrF by sacrebleu, torchtext's BLEU beside it, exact matches.

BLEU (Papineni et al., 2002) is the geometric mean of the shares of 1- to 4-grams that the reference
has too, times a penalty for being shorter; chrF (Popović, 2015) an F-score of character n-grams.
Both are of the corpus: counts are added up over all sentences, and divided once.

torchtext's bleu_score differs from sacrebleu's, for three reasons:
- It counts whatever tokens it is given, here those of "basic_english": in lower case, so a wrong
  capital costs nothing. sacrebleu has a tokenizer of its own (13a) and minds the case.
- Where no 4-gram of the corpus matches it is 0; sacrebleu puts half a match there, then a quarter
  (exponential smoothing).
- It is a share of 1, here put in percent.
Figures in tutorials are mostly of its kind. To compare, compare the signatures.
"""

from Transformer_Manual.dataset import words


def exact_match(translations: list[str], references: list[str]) -> float:
    """The share of translations that are the reference, but for the number of spaces, in [0, 1]."""
    pairs = zip(translations, references, strict=True)
    return sum(ours.split() == theirs.split() for ours, theirs in pairs) / len(references)


def torchtext_bleu(translations: list[str], references: list[str]) -> float | None:
    """In percent, of basic_english tokens; None where torchtext does not load."""
    official = words.torchtext()
    if official is None:
        return None
    ours = [words.basic_english(line) for line in translations]
    theirs = [[words.basic_english(line)] for line in references]
    return 100 * official.data.metrics.bleu_score(ours, theirs)


def from_worst_to_best(translations: list[str], references: list[str]) -> dict[str, int]:
    """Rows of five translations by chrF: the worst, those a quarter, half and three quarters of the
    way up, and the best. Where several are equally good, longer ones are better."""
    from sacrebleu.metrics import CHRF

    chrf, rows = CHRF(), range(len(references))
    scores = [chrf.sentence_score(translations[i], [references[i]]).score for i in rows]
    order = sorted(rows, key=lambda i: (scores[i], len(references[i])))
    places = ["the worst", "a quarter up", "in the middle", "three quarters up", "the best"]
    return {
        f"{place} of {len(order):,}, chrF {scores[i]:.0f}": i
        for place, i in zip(
            places, (order[(len(order) - 1) * n // 4] for n in range(5)), strict=True
        )
    }


def score(
    translations: list[str], references: list[str]
) -> tuple[dict[str, float], dict[str, str]]:
    """Of detokenised translations, one reference each: the metrics, and sacrebleu's signatures.

    "bleu", "chrf" and "torchtext_bleu" (where torchtext loads) are in percent, "exact_match" in
    [0, 1]; the signatures say how the first two were counted.
    """
    from sacrebleu.metrics import BLEU, CHRF  # slow to import

    metrics, signatures = {}, {}
    for name, metric in {"bleu": BLEU(), "chrf": CHRF()}.items():
        metrics[name] = metric.corpus_score(translations, [references]).score
        signatures[name] = str(metric.get_signature())
    beside = torchtext_bleu(translations, references)
    if beside is not None:
        metrics["torchtext_bleu"] = beside
    metrics["exact_match"] = exact_match(translations, references)
    return metrics, signatures
