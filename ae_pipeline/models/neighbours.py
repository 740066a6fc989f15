"""What a loss says of nearest neighbours: whether each vector sees the others as near as it did.

A search ranks decoded vectors by their angle to a query. The mean squared error does not know that: it gives up what
varies little, though it tells near vectors apart. After G. Hinton and S. Roweis, "Stochastic neighbor embedding", NIPS
2002: a row's neighbours are a distribution over the other rows of its batch.
"""

import torch
from torch import Tensor
from torch.nn import functional

# Rows that see each other; a batch of more is several such groups, so that losses of batches of any size compare.
_GROUP = 512
# A row whose cosine is this much smaller is seen e times less.
_TEMPERATURE = 0.05
# What a row sees of itself, in place of minus infinity, of which gradients are none.
_NOTHING = -1e4


def neighbour_loss(original: Tensor, decoded: Tensor, zero: float) -> Tensor:
    """Nats, mean over rows: what is lost by looking for each original row (N, ...) among the decoded ones.

    The Kullback-Leibler divergence from softmax(cosine / temperature) over the originals to the one over the decoded
    rows. Cosines are those of rows less `zero`.
    """
    losses = [
        _divergence(*pair) * len(pair[0])
        for pair in zip(_directions(original, zero), _directions(decoded, zero), strict=True)
    ]
    return torch.stack(losses).sum() / len(original)


def _divergence(original: Tensor, decoded: Tensor) -> Tensor:
    was, is_now = (_seen(original, rows) for rows in (original, decoded))
    return (was.exp() * (was - is_now)).sum(1).mean()


def _seen(queries: Tensor, rows: Tensor) -> Tensor:
    """Logarithms of the shares of rows among what each query sees, (n, n); its own row is not one of them."""
    cosine = (queries @ rows.t()).float() / _TEMPERATURE
    own = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    return cosine.masked_fill(own, _NOTHING).log_softmax(1)


def _directions(rows: Tensor, zero: float) -> tuple[Tensor, ...]:
    return functional.normalize(rows.flatten(1).float() - zero).split(_GROUP)
