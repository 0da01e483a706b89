"""Theme and style sheet: system fonts, few colours, light and dark by the reader's own setting.

Fetches nothing: a page on a machine without a network looks the same.
"""

import gradio as gr

THEME = gr.themes.Base(
    primary_hue="teal",
    neutral_hue="slate",
    radius_size="md",
    font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif"],
    font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "DejaVu Sans Mono", "monospace"],
).set(
    body_background_fill="#f8fafc",
    body_background_fill_dark="#0f172a",
    body_text_color_subdued="#5b6b80",
    body_text_color_subdued_dark="#9fb0c5",
    input_background_fill="#ffffff",
    input_background_fill_dark="#1b2739",
    button_primary_background_fill="#0f766e",
    button_primary_background_fill_hover="#115e59",
    button_primary_background_fill_dark="#0f766e",
    button_primary_background_fill_hover_dark="#0d9488",
    button_primary_text_color="#ffffff",
    button_secondary_background_fill="#e2e8f0",
    button_secondary_background_fill_dark="#2a384d",
)

CSS = """
.gradio-container {
  --line: #d5dde7; --card: #ffffff; --soft: #f1f5f9; --base: #64748b; --control: #0d9488;
  padding: 0 !important; max-width: none !important;
}
.dark .gradio-container, .dark.gradio-container, .dark {
  --line: #334155; --card: #162033; --soft: #1f2c40; --base: #94a3b8; --control: #2dd4bf;
}
.gradio-container > .main { width: 100% !important; max-width: 1600px !important;
  margin: 0 auto !important; padding: 20px 28px 32px !important; }
.gradio-container .html-container, .gradio-container .html-container > div { padding: 0 !important; }
footer { display: none !important; }

#head { align-items: flex-end; justify-content: space-between; gap: 6px 24px; }
#head > * { width: auto !important; flex: 0 1 auto !important; min-width: 0 !important; }
#headline h1 { font-size: 1.4rem; font-weight: 650; line-height: 1.3; margin: 0 0 2px; }
#headline p { margin: 0; color: var(--body-text-color-subdued); }
#headline b { color: var(--body-text-color); font-weight: 600; }
.status { font-size: .85rem; color: var(--body-text-color-subdued); overflow-wrap: anywhere; }
.status code { font-size: .82rem; background: none; border: 0; padding: 0; color: inherit; }
.status i { display: inline-block; width: 8px; height: 8px; border-radius: 50%;
  margin-right: 8px; background: #d97706; }
.status.ok i { background: var(--control); }
.status.waiting i, .pulse { animation: pulse 1.6s ease-in-out infinite; }
@keyframes pulse { 50% { opacity: .35; } }

.pane, #recorded { gap: 8px !important; padding: 12px 14px !important; border-radius: 10px !important;
  border: 1px solid var(--line) !important; background: var(--card) !important; }
.pane { border-top: 3px solid var(--base) !important; }
#control-pane { border-top-color: var(--control) !important; }
#recorded { border-style: dashed !important; background: transparent !important; }
#recorded > .block { flex-grow: 0 !important; }
.pane-title { display: flex; flex-wrap: wrap; align-items: baseline; justify-content: space-between;
  gap: 2px 12px; }
.pane-title b { font-weight: 620; }
.pane-title code, .pane-title span { font-size: .8rem; color: var(--body-text-color-subdued);
  background: none; border: 0; padding: 0; overflow-wrap: anywhere; }
.pane .block { border: 0 !important; background: transparent !important; box-shadow: none !important; }
.pane > .block { margin: 0 !important; flex-grow: 0 !important; }
.pane > .block:last-child { margin-top: auto !important; }
.pane .icon-button-wrapper { display: none !important; }
.pane .bubble-wrap { background: transparent !important; padding: 0 !important; }
.pane .message-wrap { padding: 4px 0 !important; gap: 8px !important; }
.pane .message-row { margin: 0 !important; }
.pane .message { font-size: .95rem !important; box-shadow: none !important;
  border: 1px solid var(--line) !important; }
.pane .message.bot { background: var(--soft) !important; }
.pane .message.user { background: transparent !important; }
.pane .message-markdown-disabled .md { white-space: pre-wrap; overflow-wrap: anywhere; }
.pane .placeholder { color: var(--body-text-color-subdued); }
.stats { display: flex; flex-wrap: wrap; align-content: flex-start; gap: 2px 16px; min-height: 2.9em;
  font-size: .8rem; line-height: 1.4; color: var(--body-text-color); font-variant-numeric: tabular-nums; }
.stats em { font-style: normal; color: var(--body-text-color-subdued); }
.stats span { overflow-wrap: anywhere; }
.pane-error { margin-bottom: 6px; padding: 8px 10px; border-radius: 6px; font-size: .88rem;
  border: 1px solid #dc262680; background: #dc262618; color: var(--body-text-color);
  overflow-wrap: anywhere; }

.recorded-body h4 { margin: 12px 0 4px; font-size: .78rem; font-weight: 500;
  color: var(--body-text-color-subdued); }
.recorded-body pre { margin: 0; padding: 6px 10px; border: 1px solid var(--line) !important;
  border-radius: 6px; font-family: var(--font-mono); font-size: .88rem; white-space: pre-wrap;
  overflow-wrap: anywhere; max-height: 160px; overflow-y: auto; background: transparent !important;
  color: var(--body-text-color); }
.recorded-body pre.answer { background: var(--soft) !important; }
.hint { color: var(--body-text-color-subdued); font-size: .9rem; margin: 8px 0 0; }

#ask { align-items: stretch; gap: 8px; }
#prompt { flex: 8 1 320px !important; }
#prompt textarea { border: 1px solid var(--line); border-radius: 8px; }
#ask button { font-size: .95rem; font-weight: 550; }
.examples { align-items: center; gap: 6px 8px !important; }
.examples > * { flex: 0 1 auto !important; width: auto !important; min-width: 0 !important; }
.row-label { width: 110px; font-size: .85rem; line-height: 1.25; }
.row-label small { display: block; font-size: .75rem; color: var(--body-text-color-subdued); }
button.example { max-width: 100%; font-weight: 450 !important; font-size: .85rem !important;
  padding: 4px 10px !important; overflow-wrap: anywhere; white-space: normal;
  color: var(--body-text-color) !important; }
#options { gap: 4px 24px; justify-content: flex-start; }
#options > .block { flex: 0 0 auto !important; width: auto !important;
  margin: 0 !important; padding: 0 !important; border: 0 !important;
  background: none !important; box-shadow: none !important; }
#options .label-text { font-size: .85rem; color: var(--body-text-color-subdued); }
#scores { gap: 8px !important; max-width: 980px; }
#scores .block { border-color: var(--line) !important; background: transparent !important; }
table.scores { width: 100%; border-collapse: collapse; border: 0 !important; margin: 0;
  font-size: .88rem; font-variant-numeric: tabular-nums; }
table.scores tr { border: 0 !important; background: none !important; }
table.scores th, table.scores td { padding: 6px 10px; border: 0 !important; text-align: right;
  border-bottom: 1px solid var(--line) !important; background-color: transparent !important; }
table.scores th:first-child { text-align: left; font-weight: 500; padding-left: 0; }
table.scores thead th { font-weight: 500; color: var(--body-text-color-subdued); }
table.scores small { color: var(--body-text-color-subdued); margin-left: 6px; }
table.scores td { width: 17%; white-space: nowrap; }
#scores h2 { margin: 8px 0 0; font-size: .95rem; font-weight: 620; }
table.scores td::after { content: ""; display: block; height: 3px; margin-top: 3px; border-radius: 2px;
  background: linear-gradient(to right, var(--control) calc(var(--share, 0) * 100%), var(--soft) 0); }

@media (max-width: 640px) {
  .gradio-container > .main { padding: 12px 12px 24px !important; }
  .pane .block[role="log"], #base-chat, #control-chat { height: 230px !important; }
  .row-label { width: calc(100vw - 24px); }
  .row-label small { display: inline; margin-left: 6px; }
  #ask button { flex: 1 1 84px !important; }
  table.scores { font-size: .82rem; }
  table.scores th, table.scores td { padding: 6px 4px; }
  table.scores small { display: block; margin: 0; }
}
"""
