"""An HTML page that shows tokenizers side by side: one file, no scripts, nothing fetched."""

from __future__ import annotations

import html
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from tokamask import metrics
from tokamask._core import Tokenizer

COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#6b46c1", "#b7791f", "#97266d")

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a202c; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2.2rem }
table { border-collapse: collapse } td, th { padding: .2rem .8rem .2rem 0; text-align: right }
td:first-child, th:first-child { text-align: left } th { border-bottom: 1px solid #cbd5e0; font-weight: 600 }
code { background: #edf2f7; border-radius: 3px; padding: 0 .2rem; white-space: pre; margin-right: .4rem }
svg text { font: 12px system-ui, sans-serif; fill: #1a202c } .key { margin-right: 1rem }
"""

MEASURES = {
    "tokens": ("tokens", "{:,}"),
    "bytes_per_token": ("bytes per token", "{:.3f}"),
    "chars_per_token": ("characters per token", "{:.3f}"),
    "fertility": ("tokens per word", "{:.3f}"),
    "renyi_efficiency": ("Rényi efficiency (2.5)", "{:.3f}"),
    "zero_order_bits_per_byte": ("zero-order bits per byte", "{:.3f}"),
    "unused_share": ("unused tokens", "{:.1%}"),
    "unreachable_tokens": ("unreachable tokens", "{:,}"),
}


def report(tokenizers: Mapping[str, Tokenizer], parts: Mapping[str, Sequence[str]]) -> str:
    """The page, as HTML.

    Parameters
    ----------
    tokenizers : mapping of str to Tokenizer
        By the name to show.
    parts : mapping of str to texts
        Held-out text by domain or language.

    Examples
    --------
    >>> text = ["to be or not to be"] * 9
    >>> page = tm.train.report({"ours": tm.train.bpe(text, vocab_size=262)}, {"english": text})
    >>> page[:15], "bytes per token" in page
    ('<!doctype html>', True)

    """
    everything = list(itertools.chain.from_iterable(parts.values()))
    size = sum(len(text.encode()) for text in everything)
    rows = {name: metrics.summary(tok, everything) for name, tok in tokenizers.items()}
    compression = {
        name: [metrics.bytes_per_token(tok, texts) for texts in parts.values()]
        for name, tok in tokenizers.items()
    }
    sections = [
        f"<h1>{_e(', '.join(tokenizers))}</h1>",
        f"<p>{size:,} bytes of text in {len(parts)} parts: {_e(', '.join(parts))}.</p>",
        f"<p>{_key(tokenizers)}</p>",
        "<h2>Measures</h2>",
        _table(rows, {name: len(tok) for name, tok in tokenizers.items()}),
        "<h2>Bytes per token, by part</h2>",
        _bars([*parts], compression, "{:.2f}"),
        "<h2>Tokens of the vocabulary by length in bytes</h2>",
        _bars([*map(str, range(1, 16)), "16+"], {n: _lengths(t) for n, t in tokenizers.items()}, "{:,.0f}"),
        *(_superwords(name, tok, everything) for name, tok in tokenizers.items()),
    ]
    body = "\n".join(sections)
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>Tokenizers</title>'
        f"<style>{STYLE}</style>\n<body>\n{body}\n</body></html>\n"
    )


def _e(text: str) -> str:
    return html.escape(text)


def _key(names: Mapping[str, object]) -> str:
    return "".join(
        f'<span class="key"><svg width="12" height="12"><rect width="12" height="12" fill="{colour}"/></svg> {_e(name)}</span>'
        for name, colour in zip(names, itertools.cycle(COLOURS), strict=False)
    )


def _table(rows: Mapping[str, Mapping[str, float]], sizes: Mapping[str, int]) -> str:
    head = "".join(f"<th>{_e(name)}</th>" for name in rows)
    lines = [f"<tr><th></th>{head}</tr>"]
    cells = "".join(f"<td>{size:,}</td>" for size in sizes.values())
    lines.append(f"<tr><td>vocabulary</td>{cells}</tr>")
    for measure, (title, form) in MEASURES.items():
        cells = "".join(f"<td>{form.format(row[measure])}</td>" for row in rows.values())
        lines.append(f"<tr><td>{title}</td>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _bars(labels: Sequence[str], series: Mapping[str, Sequence[float]], form: str) -> str:
    """Horizontal bars, one group per label, one bar per series."""
    top = max((value for row in series.values() for value in row), default=0) or 1
    thick, gap, left, width = 14, 10, 130, 560
    out, y = [], 4
    for nth, label in enumerate(labels):
        middle = y + thick * len(series) / 2 + 4
        out.append(f'<text x="{left - 8}" y="{middle}" text-anchor="end">{_e(label[:18])}</text>')
        for colour, row in zip(itertools.cycle(COLOURS), series.values(), strict=False):
            value = row[nth] if row[nth] == row[nth] else 0.0
            length = width * value / top
            out.append(
                f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{thick - 2}" fill="{colour}"/>'
                f'<text x="{left + length + 5:.1f}" y="{y + thick - 4}">{form.format(value)}</text>'
            )
            y += thick
        y += gap
    return f'<svg width="{left + width + 70}" height="{y}" role="img">{"".join(out)}</svg>'


def _tokens(tok: Tokenizer) -> dict[int, bytes]:
    return dict(metrics.ordinary_tokens(tok))


def _lengths(tok: Tokenizer) -> list[float]:
    lengths = [min(len(data), 16) for data in _tokens(tok).values()]
    return [float(n) for n in np.bincount(lengths, minlength=17)[1:]]


def _superwords(name: str, tok: Tokenizer, texts: Sequence[str], most: int = 40) -> str:
    """The superwords (a space between two other characters) that the text uses most."""
    counts = metrics.token_counts(tok, texts)
    inner = [token_id for token_id, data in _tokens(tok).items() if b" " in data.strip(b" ")]
    ranked = sorted(inner, key=lambda token_id: -counts[token_id])[:most]
    used = int(counts[inner].sum()) if inner else 0
    title = f"<h2>{_e(name)}: superwords</h2><p>{len(inner):,} in the vocabulary"
    share = f", {used / max(int(counts.sum()), 1):.1%} of the tokens of this text.</p>" if inner else ".</p>"
    shown = (tok.vocabulary.bytes(token_id).decode(errors="replace") for token_id in ranked)
    return title + share + "".join(f"<code>{_e(text).replace(chr(10), '⏎')}</code> " for text in shown)
