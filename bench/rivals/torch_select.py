"""Selection, cache and tree functions as one would write them with torch: vectorised, one product where one will do."""

import math

import numpy as np
import torch
from torch.nn.functional import avg_pool1d, cosine_similarity, normalize, scaled_dot_product_attention


def flat(cache, table):
    """A paged cache of one sequence in one piece, as torch would have it: [heads, tokens, dim]."""
    return cache[table[0].long()].flatten(0, 1).transpose(0, 1).contiguous()


def grouped(q, heads):
    """[heads, group, dim] of one position."""
    return q[0].view(heads, -1, q.shape[-1])


def token_select(q, k_cache, table, *, seq_lens, k, n_init, n_local):
    keys = flat(k_cache, table)
    queries, end = grouped(q, len(keys)) / math.sqrt(q.shape[-1]), int(seq_lens[0]) - n_local

    def run():
        votes = (queries @ keys[:, n_init:end].transpose(1, 2)).softmax(dim=-1).sum(dim=(0, 1))
        chosen = votes.topk(k).indices.sort().values + n_init
        return torch.cat([torch.arange(n_init), chosen, torch.arange(end, end + n_local)])

    return run


def quest_bounds(k_cache, table, *, seq_lens):
    return lambda: (k_cache.amin(dim=1), k_cache.amax(dim=1))


def quest_scores(q, low, high, table, *, seq_lens, page_size):
    low, high = (x[table[0].long()].transpose(0, 1).contiguous() for x in (low, high))
    queries = grouped(q, len(low))

    def run():
        least, most = queries.clamp(max=0) @ low.transpose(1, 2), queries.clamp(min=0) @ high.transpose(1, 2)
        return (least + most).amax(dim=1)

    return run


def fasa_scores(q, k_cache, table, dominant, *, seq_lens):
    keys, half = flat(k_cache, table), q.shape[-1] // 2
    channels = torch.cat([dominant, dominant + half], dim=1).long()
    kept = torch.zeros(len(keys), 1, 2 * half).scatter_(2, channels[:, None], 1.0)
    queries = grouped(q, len(keys)) * kept
    return lambda: (queries @ keys.transpose(1, 2)).softmax(dim=-1).sum(dim=1)


def fasa_scores_beside(q, side, table, dominant, *, seq_lens):
    half = q.shape[-1] // 2
    channels = torch.cat([dominant, dominant + half], dim=1).long()
    keys = flat(side, table)
    queries = grouped(q, len(keys)).gather(2, channels[:, None].expand(-1, 4, -1))
    return lambda: (queries @ keys.transpose(1, 2)).softmax(dim=-1).sum(dim=1)


def fasa_calibrate(q, k, n_chunks, *, top):
    heads, half = k.shape[1], k.shape[2] // 2

    def run():
        queries = q.view(len(q), heads, -1, 2 * half).transpose(0, 1).flatten(1, 2)
        keys = k.permute(1, 2, 0)
        scores = queries @ keys
        best = torch.zeros_like(scores, dtype=torch.bool).scatter_(2, scores.topk(top).indices, True)
        agreement = []
        for c in range(half):
            alone = (queries[:, :, c::half] @ keys[:, c::half]).topk(top).indices
            agreement.append(best.gather(2, alone).sum(dim=(1, 2)))
        return torch.stack(agreement, dim=1).topk(n_chunks).indices.sort().values

    return run


def page_tokens(pages, size, *, seq_lens):
    slots = torch.arange(size, dtype=torch.int32)

    def run():
        tokens = pages[..., None] * size + slots
        return tokens.masked_fill_(
            (pages[..., None] < 0) | (tokens >= seq_lens[:, None, None, None]), -1
        ).flatten(2)

    return run


def page_table(indptr, indices, last, *, page_size, max_pages):
    slots = torch.arange(max_pages)

    def run():
        pages = indptr[1:] - indptr[:-1]
        places = (indptr[:-1, None] + slots).clamp_(max=len(indices) - 1)
        return indices[places] * (slots < pages[:, None]), (pages - 1) * page_size + last

    return run


def kv_views(cache, layout):
    return lambda: (cache[:, 0].transpose(1, 2), cache[:, 1].transpose(1, 2))


def verify_greedy(trees, targets):
    tokens, parents = trees
    rows, nodes = tokens.shape
    batch = torch.arange(rows)

    def run():  # a step per level: of the children of where each tree stands, the first that the target chose
        at, length = torch.zeros(rows, dtype=torch.long), torch.zeros(rows, dtype=torch.long)
        for _ in range(nodes):
            fits = (parents == (at - 1)[:, None]) & (tokens == targets[batch, at][:, None])
            found, child = fits.max(dim=1)
            if not found.any():
                break
            at, length = torch.where(found, child + 1, at), length + found
        return length, targets[batch, at]

    return run


def verify_sampled(trees, laws, *, seed):
    tokens, parents = trees
    rows, nodes = tokens.shape
    batch, own = torch.arange(rows), torch.arange(nodes)

    def run():  # the target draws a token where each tree stands; a child of that token is accepted
        at, length, drawn = torch.zeros(rows, dtype=torch.long), torch.zeros(rows, dtype=torch.long), None
        for _ in range(nodes + 1):
            drawn = laws[batch, at].multinomial(1)
            fits = (parents == (at - 1)[:, None]) & (tokens == drawn) & (own >= at[:, None])
            found, child = fits.max(dim=1)
            if not found.any():
                break
            at, length = torch.where(found, child + 1, at), length + found
        return length, drawn

    return run


def sample_awrs(logits, matcher, *, seed):
    mask = torch.zeros((1, -(-len(logits) // 32)), dtype=torch.int32)
    bits = torch.arange(32, dtype=torch.int32)

    def run():  # the whole mask, then the law restricted to it
        matcher.fill_bitmask(mask.numpy(), 0)
        allowed = ((mask[0, :, None] >> bits) & 1).bool().flatten()[: len(logits)]
        law = logits.softmax(dim=0) * allowed
        return law.multinomial(1), law.sum().log()

    return run


def dymu_threshold(metrics, r):
    metrics = [torch.from_numpy(x) for x in metrics]

    def run():
        edges = []
        for x in metrics:
            unit = normalize(x, dim=1)
            edges.append((unit[::2] @ unit[1::2].T).amax(dim=1))
        return torch.cat(edges).sort(descending=True).values[int(r * len(metrics))]

    return run


def indexer_scores(q, k, w, *, positions):
    return lambda: (torch.relu(q[0] @ k.T) * w[0, :, None]).sum(dim=0)


def hisa_select(q, k, w, n_tokens, *, positions, n_blocks):
    def scores(keys):
        return (torch.relu(q[0] @ keys.T) * w[0, :, None]).sum(dim=0)

    def run():
        blocks = k.view(-1, 128, k.shape[1])
        best = scores(blocks.mean(dim=1)).topk(n_blocks).indices
        places = (best[:, None] * 128 + torch.arange(128)).flatten()
        return places[scores(k[places]).topk(n_tokens).indices].sort().values

    return run


def column_weights(q, k):
    """[num_q_heads, queries, tokens], causal."""
    queries, heads, dim = q.shape
    keys = k.permute(1, 2, 0).repeat_interleave(heads // k.shape[1], dim=0)
    scores = q.transpose(0, 1) @ keys / math.sqrt(dim)
    hidden = torch.ones(queries, len(k), dtype=torch.bool).triu(len(k) - queries + 1)
    return scores.masked_fill_(hidden, -torch.inf).softmax(dim=-1)


def attention_column_sums(q, k):
    return lambda: column_weights(q, k).sum(dim=1)


def snapkv_scores(q, k):
    def run():
        means = avg_pool1d(
            column_weights(q, k).mean(dim=1)[:, : -len(q)], 5, stride=1, padding=2, count_include_pad=False
        )
        return means.view(k.shape[1], -1, means.shape[1]).mean(dim=1)

    return run


def tova_scores(q, k):
    return lambda: column_weights(q, k).mean(dim=(0, 1))


def knorm_scores(k):
    return lambda: -k.norm(dim=-1).T


def keydiff_scores(k):
    return lambda: -cosine_similarity(k, normalize(k, dim=-1).mean(dim=0, keepdim=True), dim=-1).T


def lagkv_scores(k, v):
    def part(x):
        x = x[4 : 4 + (len(x) - 4) // 128 * 128].view(-1, 128, *x.shape[1:])
        ref, x = x[1:], x[:-1]
        low, high = ref.amin(dim=1, keepdim=True), ref.amax(dim=1, keepdim=True)
        return ((x - low) / (high - low)).std(dim=-1).softmax(dim=1)

    return lambda: (part(k) + part(v)).argsort(dim=1).argsort(dim=1)


def merged(x, unit, sources, targets, edges):
    """Sizes and means where the sources named by ``edges`` go into their best targets."""
    best, into = (unit[sources] @ unit[targets].T).max(dim=1)
    gone = edges(best)
    sums = x[targets].clone().index_add_(0, into[gone], x[sources[gone]])
    sizes = torch.ones(len(targets)).index_add_(0, into[gone], torch.ones(len(gone)))
    return sums / sizes[:, None]


def pitome_merge(x, r, *, margin):
    def run():
        unit = normalize(x, dim=1)
        cosines = unit @ unit.T
        energy = torch.where(cosines >= margin, cosines, (cosines - margin).exp() - 1).sum(dim=1)
        order = energy.argsort(descending=True)[: 2 * r]
        return merged(x, unit, order[::2], order[1::2], lambda best: best.argsort(descending=True)[:r])

    return run


def dymu_merge(x, threshold):
    even, odd = torch.arange(0, len(x), 2), torch.arange(1, len(x), 2)
    return lambda: merged(
        x, normalize(x, dim=1), even, odd, lambda best: (best > threshold).nonzero().flatten()
    )


def entropy_scores(x):
    def run():
        gram = x @ x.transpose(1, 2)
        laws = torch.linalg.eigvalsh(gram / gram.diagonal(dim1=1, dim2=2).sum(dim=1)[:, None, None])
        return -torch.special.xlogy(laws, laws.clamp(min=1e-12)).sum(dim=1)

    return run


def pagerank_scores(attention):
    def run():
        rank = torch.full((len(attention), 1, attention.shape[1]), 1 / attention.shape[1])
        for _ in range(30):
            rank = rank @ attention
            rank /= rank.sum(dim=2, keepdim=True)
        return rank[:, 0].square().mean(dim=0).sqrt()

    return run


def unmask(logits, masked, *, threshold):
    def run():
        sure, best = logits.softmax(dim=1).max(dim=1)
        return best, sure, masked & ((sure >= threshold) | (sure == sure[masked].max()))

    return run


def tree_decode(q, k_cache, v_cache, table, mask, k, v, *, seq_lens):
    nodes, heads = q.shape[1], k.shape[2]
    keys, values = (
        torch.cat([flat(c, table), own[0].transpose(0, 1)], dim=1) for c, own in ((k_cache, k), (v_cache, v))
    )
    bits = torch.from_numpy(np.array(mask[0, :, 0].numpy().astype(np.int64)))
    seen = (bits[:, None] >> torch.arange(nodes)) & 1 == 1
    whole = torch.cat([torch.ones(nodes, keys.shape[1] - nodes, dtype=torch.bool), seen], dim=1)
    group = q.shape[2] // heads
    rows = q[0].view(nodes, heads, group, -1).permute(1, 2, 0, 3).flatten(1, 2)[None]
    allowed = whole.repeat(group, 1)
    return lambda: scaled_dot_product_attention(rows, keys[None], values[None], attn_mask=allowed)


def merge_states(v, lse):
    return lambda: ((v * lse.softmax(dim=1)[..., None]).sum(dim=1), lse.logsumexp(dim=1))


def lightning(q, k, v, decay):
    block, dims = 64, q.shape[-1]
    steps = torch.arange(block)
    apart = (steps[:, None] - steps)[None]
    inner = torch.where(apart >= 0, torch.exp(-decay[:, None, None] * apart.clamp(min=0)), 0)
    before = torch.exp(-decay[:, None] * (steps + 1))[..., None]
    after = torch.exp(-decay[:, None] * (block - 1 - steps))[..., None]
    whole = torch.exp(-decay * block)[:, None, None]

    def run():
        state, parts = torch.zeros(len(decay), dims, v.shape[-1]), []
        for at in range(0, q.shape[2], block):
            a, b, c = (x[0, :, at : at + block] for x in (q, k, v))
            parts.append(((a @ b.transpose(1, 2)) * inner) @ c + before * (a @ state))
            state = whole * state + (b * after).transpose(1, 2) @ c
        return torch.cat(parts, dim=1), state

    return run


def lightning_step(q, k, v, decay, *, state):
    fade, (q, k, v) = torch.exp(-decay)[:, None, None], (x[:, :, 0] for x in (q, k, v))

    def run():
        state.mul_(fade).addcmul_(k[..., None], v[:, :, None])
        return (q[:, :, None] @ state)[:, :, 0]

    return run


def append_kv(k, v, k_cache, v_cache, table, *, seq_lens):
    def run():
        at = (seq_lens - 1).long()
        pages = table.long().gather(1, (at // 64)[:, None])[:, 0]
        k_cache[pages, at % 64], v_cache[pages, at % 64] = k, v

    return run


def append_kv_beside(k, v, k_cache, v_cache, table, *, seq_lens, bounds, side):
    write = append_kv(k, v, k_cache, v_cache, table, seq_lens=seq_lens)
    low, high = (torch.from_numpy(x) for x in bounds)
    dominant, cache = (torch.from_numpy(x) for x in side)
    channels = torch.cat([dominant, dominant + k.shape[-1] // 2], dim=1).long()[None].expand(len(k), -1, -1)

    def run():
        write()
        at = (seq_lens - 1).long()
        pages = table.long().gather(1, (at // 64)[:, None])[:, 0]
        low[pages], high[pages] = torch.minimum(low[pages], k), torch.maximum(high[pages], k)
        cache[pages, at % 64] = k.gather(2, channels)

    return run


WAYS = {name: f for name, f in list(globals().items()) if callable(f) and name.islower()}


def prepare(name, arguments, options):
    """What to time, or None where there is no version here."""
    name = name.replace(" ", "_")
    if name not in WAYS:
        return None

    def tensor(x):
        if isinstance(x, tuple) and name.startswith("verify"):
            return tuple(map(tensor, x))
        return torch.from_numpy(x) if isinstance(x, np.ndarray) else x

    return WAYS[name](*map(tensor, arguments), **{key: tensor(x) for key, x in options.items()})
