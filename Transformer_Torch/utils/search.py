"""Finding a likely translation, token by token, for many sentences at the same time.

N sentences that are not done yet, B beams of each, V tokens.
"""

import math

import torch
from torch import Tensor

from common.errors import UserError
from Transformer_Torch.dataset.tokenizers import BEGIN, END
from Transformer_Torch.model import PAD, Transformer
from Transformer_Torch.utils.cache import CachedDecoder


def length_limits(source: Tensor, max_length: int, extra_length: int) -> Tensor:
    """How many tokens a translation may have, END included: (N, S) -> (N,).

    These are twice the sentence's, and `extra_length` more. It depends on the sentence alone, not
    on the padding that its batch gives it.
    """
    return (2 * (source != PAD).sum(1) + extra_length).clamp(max=max_length)


def allowed_logits(logits: Tensor) -> Tensor:
    """The logits (…, V) in place, without what no translation has."""
    if not logits.sum().isfinite():  # only if each of them is
        raise UserError("the network's weights have blown up: train with a smaller --lr")
    logits[..., [PAD, BEGIN]] = -math.inf
    return logits


@torch.no_grad()
def greedy_search(
    model: Transformer, source: Tensor, max_length: int | None = None
) -> list[list[int]]:
    """source (N, S) -> for each sentence the tokens that were likeliest, one by one, without END.

    The model is in evaluation mode. `max_length` is at most, and by default, the model's.
    """
    limits = length_limits(source, max_length or model.max_length, model.extra_length)
    decoder, rows = CachedDecoder(model, source), torch.arange(len(source), device=source.device)
    found = source.new_full((len(source), int(limits.max())), END)
    last = source.new_full((len(source), 1), BEGIN)
    for t in range(found.shape[1]):
        last = allowed_logits(decoder.step(last)).argmax(2)  # (N, 1)
        found[rows, t] = last[:, 0]
        going_on = ((last[:, 0] != END) & (t + 1 < limits)).nonzero().squeeze(1)
        if not len(going_on):
            break
        rows, limits, last = rows[going_on], limits[going_on], last[going_on]
        decoder.select(going_on, torch.zeros_like(last))
    return until_end(found)


def until_end(found: Tensor) -> list[list[int]]:
    """Rows of tokens (N, T) as lists, each up to its first END."""
    rows = [[*row, END] for row in found.tolist()]
    return [row[: row.index(END)] for row in rows]


def penalty(length, strength: float):
    """((5 + |y|) / 6)^α, by which log p(y | x) is divided (Wu et al., 2016, equation 14).

    Each further token makes log p smaller: with α = 0, short translations win too often.
    """
    return ((5 + length) / 6) ** strength


@torch.no_grad()
def beam_search(
    model: Transformer, source: Tensor, beam_size: int = 5, length_penalty: float = 1.0,
    max_length: int | None = None,
) -> list[list[int]]:  # fmt: skip
    """source (N, S) -> for each sentence the best translation that was found, without END.

    Best is what has the highest log p(y | x) / penalty(|y|), with END counted. In each step the
    B likeliest beginnings grow by one token. Those that end leave the beam; what has not ended
    after `length_limits` is cut there. A sentence is done once B translations have ended, or none
    that still grows can become better than the best.
    """
    B, N = beam_size, len(source)
    limits = length_limits(source, max_length or model.max_length, model.extra_length)
    decoder, rows = CachedDecoder(model, source), torch.arange(N, device=source.device)
    found = source.new_full((N, int(limits.max())), END)
    best = model.embedding.weight.new_full((N,), -math.inf)  # the score of `found`
    ended = source.new_zeros(N)  # how many translations have
    tokens = source.new_full((N, B, 1), BEGIN)
    scores = best[:, None].repeat(1, B)  # log p of each beam: all are alike, so all but one are
    scores[:, 0] = 0  # impossible

    for t in range(1, found.shape[1] + 1):
        logits = allowed_logits(decoder.step(tokens[:, :, -1]))  # (N, B, V)
        totals, beams, words = candidates(logits, scores)  # (N, 2B), the best first
        cut = (t == limits)[:, None]

        # among the first B: what ends here, or has to
        ends = (words[:, :B] == END) & totals[:, :B].isfinite()
        final = (totals[:, :B] / penalty(t, length_penalty)).where(ends | cut, -math.inf)
        final, which = final.max(1)
        better = (final > best[rows]).nonzero().squeeze(1)
        beam, word = beams[better, which[better]], words[better, which[better]]
        found[rows[better], : t - 1] = tokens[better, beam, 1:]
        found[rows[better], t - 1] = word
        best[rows[better]] = final[better]
        ended[rows] += ends.sum(1)

        # what grows on: of each beam one candidate at most ends, so there are B others
        scores, growing = totals.masked_fill(words == END, -math.inf).topk(B, dim=1)
        beams, words = beams.gather(1, growing), words.gather(1, growing)
        hopeless = scores[:, 0] / penalty(limits, length_penalty) <= best[rows]
        done = (ended[rows] >= B) | cut[:, 0] | hopeless
        going_on = (~done).nonzero().squeeze(1)
        if not len(going_on):
            break
        rows, limits, beams = rows[going_on], limits[going_on], beams[going_on]
        scores = scores[going_on]
        earlier = tokens[going_on[:, None], beams]  # (N, B, t)
        tokens = torch.cat([earlier, words[going_on][:, :, None]], dim=2)
        decoder.select(going_on, beams)
    return until_end(found)


def candidates(logits: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The 2B likeliest of all beams' continuations, the best first: logits (N, B, V), scores (N, B)
    -> their log p, the beam that each continues, and the token, (N, 2B) each."""
    N, B, V = logits.shape
    top, words = logits.topk(min(2 * B, V), dim=2)  # none below is among the 2B of all beams
    totals = scores[:, :, None] + top - logits.logsumexp(2, keepdim=True)
    totals, places = totals.flatten(1).topk(2 * B, dim=1)
    return totals, places // top.shape[2], words.flatten(1).gather(1, places)
