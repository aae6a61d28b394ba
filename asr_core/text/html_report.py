"""A scored test set as one HTML page that needs no network, and no other files except audio."""

from html import escape
from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, TypedDict, cast

from asr_core.text.scoring import NO_WORD, Score, Utterance, count_errors
from asr_core.text.tables import UNKNOWN_SPEAKER, Row, most_frequent, rate_header, rate_row, speaker_table

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 90rem; padding: 0 1rem }
body { color: #222; background: #fff }
table { border-collapse: collapse; margin: .5rem 0 1.5rem }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top }
th.n, td.n { text-align: right; font-variant-numeric: tabular-nums }
table.sortable th { cursor: pointer; user-select: none; position: sticky; top: 0; background: #f4f4f4 }
th[aria-sort=ascending]::after { content: " \\25B2" } th[aria-sort=descending]::after { content: " \\25BC" }
.w { padding: 0 .15em; border-radius: .2em } .w[data-t] { cursor: pointer }
.sub { background: #ffe3b3 } .del { background: #ffd0d0 } .ins { background: #cfe5ff }
.del del, .sub del { color: #a00 } .ins ins, .sub ins { text-decoration: none; color: #024 }
.lists { display: flex; flex-wrap: wrap; gap: 2rem } audio { height: 2rem; width: 16rem }
input[type=search] { width: 24rem; padding: .3rem }
"""

_SCRIPT = """
'use strict';
function value(row, i) {
  const v = row.cells[i].dataset.v;
  return v === undefined ? row.cells[i].textContent : Number(v);
}
document.querySelectorAll('table.sortable').forEach(table => {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, i) => head.addEventListener('click', () => {
    const before = head.getAttribute('aria-sort');
    const up = before === 'descending' || (before === null && !head.classList.contains('n'));
    heads.forEach(other => other.removeAttribute('aria-sort'));
    head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
    const rows = [...body.rows].map(row => [value(row, i), row]);
    rows.sort((a, b) => {
      const c = typeof a[0] === 'number' ? a[0] - b[0] : a[0].localeCompare(b[0]);
      return up ? c : -c;
    });
    body.append(...rows.map(pair => pair[1]));
  }));
});
const query = document.getElementById('filter'), wrong = document.getElementById('wrong');
const shown = document.getElementById('shown');
function filter() {
  const wanted = query.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let count = 0;
  for (const row of document.getElementById('utterances').tBodies[0].rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = (wrong.checked && row.dataset.errors === '0') || !wanted.every(word => text.includes(word));
    count += !row.hidden;
  }
  shown.textContent = count;
}
query.addEventListener('input', filter);
wrong.addEventListener('change', filter);
document.addEventListener('click', event => {
  const word = event.target.closest('[data-t]'), audio = word && word.closest('tr').querySelector('audio');
  if (audio) { audio.currentTime = Number(audio.dataset.start || 0) + Number(word.dataset.t); audio.play(); }
});
document.addEventListener('play', event => {
  document.querySelectorAll('audio').forEach(other => { if (other !== event.target) other.pause(); });
}, true);
"""


class Player(NamedTuple):
    """Audio of an utterance.

    Attributes:
      src: address of the audio.
      start: seconds in it at which the utterance begins.
    """

    src: str
    start: float = 0.0


class Word(TypedDict, total=False):
    """A word of a hypothesis, with its times in seconds and perhaps its confidence."""

    word: str
    start: Optional[float]
    end: float
    confidence: float


def render(
    title: str,
    name: str,
    utterances: Sequence[Utterance],
    score: Score,
    players: Mapping[str, Player] = {},
    words: Mapping[str, Sequence[Word]] = {},
) -> str:
    """Return the page.

    Args:
      title: title of the page.
      name: name of the test set.
      utterances, score: its utterances and their score.
      players: audio by utterance id; others get no player.
      words: the words of the hypotheses by utterance id.
    """
    frequent = most_frequent(score)
    parts = [
        "<!DOCTYPE html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        _table([rate_header(cer=True), rate_row(name, utterances, score, cer=True)], 1),
        "<h2>Speakers</h2>",
        _table(speaker_table(utterances, score), 1, "sortable"),
        '<h2>Most frequent errors</h2><div class="lists">',
        *(
            f"<section><h3>{kind.capitalize()}</h3>{_counts(entries)}</section>"
            for kind, entries in frequent.items()
        ),
        "</div><h2>Utterances</h2>",
        '<p><input type="search" id="filter" placeholder="words, speaker or id" aria-label="filter"> '
        '<label><input type="checkbox" id="wrong"> only those with errors</label> '
        f'<span id="shown">{len(utterances)}</span> of {len(utterances)} shown. '
        'Marks: <span class="w sub"><del>spoken</del> <ins>recognised</ins></span> substitution, '
        '<span class="w del"><del>spoken</del></span> deletion, '
        '<span class="w ins"><ins>recognised</ins></span> insertion.</p>',
        '<table id="utterances" class="sortable"><thead><tr><th>utterance</th><th>speaker</th>'
        '<th class="n">words</th><th class="n">errors</th><th class="n">rate %</th>'
        "<th>alignment</th><th>audio</th></tr></thead><tbody>",
        *_rows(utterances, score, players, words),
        f"</tbody></table><script>{_SCRIPT}</script></body></html>",
    ]
    return "\n".join(parts) + "\n"


def _rows(
    utterances: Sequence[Utterance],
    score: Score,
    players: Mapping[str, Player],
    words: Mapping[str, Sequence[Word]],
) -> List[str]:
    speaker_of = {u.cut_id: u.speaker or UNKNOWN_SPEAKER for u in utterances}
    rows = []
    for cut_id, pairs in score.alignments:
        c = count_errors(pairs)
        rate = "" if c.ref_len == 0 else f"{c.wer:.1f}"
        cells = [f"<td>{escape(cut_id)}</td><td>{escape(speaker_of[cut_id])}</td>"]
        cells += [f'<td class="n" data-v="{v}">{v}</td>' for v in (c.ref_len, c.errors)]
        cells.append(f'<td class="n" data-v="{rate or int(c.errors > 0) * 10**6}">{rate}</td>')
        cells.append(f"<td>{_alignment(pairs, words.get(cut_id))}</td>")
        cells.append(f"<td>{_player(players.get(cut_id))}</td>")
        rows.append(f'<tr data-errors="{c.errors}">{"".join(cells)}</tr>')
    return rows


def _alignment(pairs: Sequence[Tuple[str, str]], words: Optional[Sequence[Word]]) -> str:
    """Return aligned words, coloured, with the times of recognised ones if they are known."""
    recognised = sum(hyp != NO_WORD for _, hyp in pairs)
    notes = iter(words if words is not None and len(words) == recognised else [Word()] * recognised)
    out = []
    for ref, hyp in pairs:
        extra = "" if hyp == NO_WORD else _note(next(notes))
        if ref == hyp:
            out.append(f'<span class="w"{extra}>{escape(ref)}</span>')
            continue
        kind = "ins" if ref == NO_WORD else "del" if hyp == NO_WORD else "sub"
        shown = [f"<del>{escape(ref)}</del>"] * (ref != NO_WORD)
        shown += [f"<ins>{escape(hyp)}</ins>"] * (hyp != NO_WORD)
        out.append(f'<span class="w {kind}"{extra}>{" ".join(shown)}</span>')
    return " ".join(out)


def _note(word: Word) -> str:
    if word.get("start") is None:
        return ""
    text = f"{word['start']:.2f} to {word['end']:.2f} s"
    if "confidence" in word:
        text += f", confidence {word['confidence']:.2f}"
    return f' data-t="{word["start"]:.3f}" title="{escape(text)}"'


def _player(player: Optional[Player]) -> str:
    if player is None:
        return ""
    start = f' data-start="{player.start:.3f}"' if player.start else ""
    return f'<audio controls preload="none" src="{escape(player.src)}"{start}></audio>'


def _table(rows: Sequence[Row], text_columns: int, kind: str = "") -> str:
    """Return a table, header first; the columns after the first ``text_columns`` are numbers."""
    head = "".join(f"<th{_number(i, text_columns)}>{escape(str(v))}</th>" for i, v in enumerate(rows[0]))
    body = [
        "<tr>" + "".join(_cell(i, v, text_columns) for i, v in enumerate(row)) + "</tr>" for row in rows[1:]
    ]
    opening = f'<table class="{kind}">' if kind else "<table>"
    return f"{opening}<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _number(column: int, text_columns: int) -> str:
    return ' class="n"' if column >= text_columns else ""


def _cell(column: int, value: object, text_columns: int) -> str:
    text = str(value)
    sort = ""
    if column >= text_columns:
        sort = f' data-v="{text.split()[0].replace("inf", "Infinity")}"'
    return f"<td{_number(column, text_columns)}{sort}>{escape(text)}</td>"


def _counts(entries: Sequence[Tuple[int, str]]) -> str:
    rows: List[Row] = [("what", "count"), *((words, n) for n, words in entries)]
    return _table(rows, 1, "sortable") if entries else "<p>none</p>"


def words_by_id(records: Sequence[Mapping[str, object]]) -> Dict[str, Sequence[Word]]:
    """Return the words of records that decoding wrote, by utterance id."""
    return {str(r["id"]): cast(List[Word], r["words"]) for r in records if isinstance(r.get("words"), list)}
