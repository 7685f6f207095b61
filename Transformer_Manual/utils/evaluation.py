"""How good a network is on a split: its loss over every token, and what it translates."""

import math
from argparse import Namespace

from torch import Tensor
from tqdm import tqdm

from common.metrics import RunningMean
from Transformer_Manual.dataset.tokenizers import END, PAD, Tokenizer
from Transformer_Manual.dataset.translation import source_batches
from Transformer_Manual.model import Transformer
from Transformer_Manual.utils.bleu import exact_match
from Transformer_Manual.utils.losses import TokenCrossEntropy, count
from Transformer_Manual.utils.search import beam_search, greedy_search

ANSWERS = 200  # validation sentences that are translated after each epoch, of those data sets
ONE_ANSWER = ("dates", "reverse", "copy")  # in which one answer alone is right
TOKENS = 4096  # of the source, in sentences that are translated at the same time


def mean_loss(model, data) -> float:
    """Nats per label that counts, of a token or a character, over the split; never smoothed."""
    model.eval()
    criterion, loss = TokenCrossEntropy(), RunningMean()
    for inputs, labels in data.in_order():
        logits = model.forward(*inputs)
        loss.add(criterion.forward(logits, labels), count(labels))
    return loss.value


def evaluate(model, data, args: Namespace) -> dict[str, float]:
    """The loss, and where one answer alone is right, the share of right ones (found greedily)."""
    metrics = {"loss": mean_loss(model, data)}
    if args.dataset in ONE_ANSWER and math.isfinite(metrics["loss"]):
        asked, wanted = data.sentences.source[:ANSWERS], data.sentences.target[:ANSWERS]
        metrics["exact_match"] = exact_match(translate(model, data.tokenizer, asked), wanted)
    return metrics


def translate(
    model: Transformer, tokenizer: Tokenizer, texts: list[str], beam_size: int = 1,
    length_penalty: float = 1.0,
) -> list[str]:  # fmt: skip
    """The translations in the order of the texts; with a `beam_size` of 1, greedily."""
    model.eval()
    translations = [""] * len(texts)
    batches = list(source_batches(tokenizer, texts, TOKENS, model.embedding.weight.device))
    for rows, source in tqdm(
        batches, "translating", leave=False, disable=len(batches) == 1 or None
    ):
        source = shortened(source, model.max_length)
        if beam_size == 1:
            found = greedy_search(model, source)
        else:
            found = beam_search(model, source, beam_size, length_penalty)
        for row, tokens in zip(rows.tolist(), found, strict=True):
            translations[row] = tokenizer.decode(tokens)
    return translations


def shortened(source: Tensor, most: int) -> Tensor:
    """Sentences (N, S), of those too long for the network the beginning: (N, at most `most`)."""
    if source.shape[1] <= most:
        return source
    source = source[:, :most].clone()
    source[source[:, -1] != PAD, -1] = END
    return source
