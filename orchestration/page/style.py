"""The style sheet of every page: plain, light, readable on paper."""

STYLE = """
:root { color-scheme: light; --ink: #22222a; --soft: #6a6a75; --line: #e2e2e8; --back: #fafafc; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); margin: 0 auto;
       max-width: 1180px; padding: 2rem 1.5rem 4rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; } p { color: var(--soft); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; background: white; }
th, td { padding: .35rem .8rem; border-bottom: 1px solid var(--line); text-align: right; }
td { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } .up { color: #1f7a4d; } .down { color: #a8323e; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(260px, 1fr)); gap: 1rem; }
.card { background: white; border: 1px solid var(--line); border-radius: 8px; padding: .8rem; font-size: .86rem; }
.card svg { width: 100%; height: auto; image-rendering: pixelated; border-radius: 4px; }
.card code { display: block; white-space: pre-wrap; overflow-wrap: anywhere; margin: .25rem 0; padding: .3rem .4rem;
             background: #f4f4f8; border-radius: 4px; } .tag { color: var(--soft); } svg { max-width: 100%; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .6rem; } .wide { grid-template-columns: 1fr; }
.wide .card svg { max-width: 420px; display: block; }
.small { color: var(--soft); font-size: .8rem; } .scroll { overflow-x: auto; } td svg { vertical-align: middle; }
"""
