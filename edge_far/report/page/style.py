"""The page's style sheet: calm, light or dark as the system is, colours that people with any colour vision tell apart.

Blue and orange are those of Okabe and Ito, lighter on a dark ground; marks differ in form as well.
"""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root { color-scheme: light dark; --ground: #fdfdfc; --ink: #1f2328; --quiet: #5b636d; --rule: #e3e5e8; --soft: #f3f4f5;
  --a: #0068a8; --b: #b84a00; --c: #00704f; --a-rgb: 0 104 168; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171b; --ink: #e6e8eb; --quiet: #9aa4af; --rule: #2c3239;
  --soft: #1c2127; --a: #63b7ee; --b: #f2a64b; --c: #3fc798; --a-rgb: 99 183 238; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, sans-serif;
  overflow-wrap: anywhere; }
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem; padding-top: .8rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 1.6rem 0 .3rem; }
p { margin: .3rem 0 .8rem; max-width: 42rem; }
.quiet, footer, figcaption, summary { color: var(--quiet); font-size: .9rem; }
footer { margin-top: 3rem; border-top: 1px solid var(--rule); padding-top: .8rem; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: 1rem 0 0; padding: 0; }
a { color: var(--a); text-underline-offset: .15em; }
a:focus-visible, summary:focus-visible, .wide:focus-visible { outline: 2px solid var(--a); outline-offset: 2px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 9.5rem), 1fr)); gap: .6rem;
  margin: 1rem 0; }
.tiles > div { background: var(--soft); border-radius: .4rem; padding: .55rem .8rem; }
.tiles dt { color: var(--quiet); font-size: .82rem; }
.tiles dd { margin: 0; }
.tiles b { font-size: 1.35rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.tiles span { display: block; color: var(--quiet); font-size: .82rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); gap: .4rem 2rem; }
figure { margin: .6rem 0; min-width: 0; }
figcaption { margin-bottom: .2rem; color: var(--ink); font-weight: 600; }
svg { display: block; width: 100%; max-width: 29rem; height: auto; }
svg text { fill: var(--ink); font: 12.5px system-ui, sans-serif; }
svg .tick { fill: var(--quiet); font-size: 12px; font-variant-numeric: tabular-nums; }
svg .label { font-weight: 600; }
svg .small { font-size: 10px; }
svg .line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
svg .dashed { stroke-dasharray: 5 4; }
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .band { opacity: .2; stroke: none; }
svg .thin { stroke-width: 1; opacity: .45; }
svg .ring { fill: var(--ground); stroke-width: 2; }
svg .a.line, svg .a.ring { stroke: var(--a); } svg .a.dot, svg .a.band, svg .a.fill, svg text.a { fill: var(--a); }
svg .b.line, svg .b.ring { stroke: var(--b); } svg .b.dot, svg .b.band, svg .b.fill, svg text.b { fill: var(--b); }
svg .c.line, svg .c.ring { stroke: var(--c); } svg .c.dot, svg .c.band, svg .c.fill, svg text.c { fill: var(--c); }
svg .q.line { stroke: var(--quiet); } svg .q.fill, svg text.q { fill: var(--quiet); } svg .s.fill { fill: var(--rule); }
svg text.on { fill: var(--ground); }
details { margin: .2rem 0 1rem; }
summary { cursor: pointer; }
.wide { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-size: .88rem; margin: .4rem 0; }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--rule); vertical-align: top;
  white-space: nowrap; }
.prose td { white-space: normal; }
th { color: var(--quiet); font-weight: 600; }
.n { text-align: right; font-variant-numeric: tabular-nums; }
@media print { details > * { display: block; } }
"""
