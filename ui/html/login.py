"""The page that asks for a key or a password: plain HTML, so that nothing of the page behind it is served before."""

from html import escape

_STYLE = """
:root { color-scheme: light dark; --text: #1e293b; --soft: #5b6b80; --page: #f8fafc; --card: #fff; --line: #d5dde7; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e2e8f0; --soft: #9fb0c5; --page: #0f172a; --card: #162033; --line: #334155; }
}
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 16px; background: var(--page);
  color: var(--text); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { width: min(380px, 100%); padding: 28px; border: 1px solid var(--line); border-top: 3px solid #0f766e;
  border-radius: 10px; background: var(--card); }
h1 { margin: 0 0 4px; font-size: 1.2rem; font-weight: 650; }
p { margin: 0 0 20px; color: var(--soft); font-size: .9rem; }
p[role=alert] { color: var(--text); padding: 8px 10px; border: 1px solid #dc262680; border-radius: 6px;
  background: #dc262618; }
label { display: block; margin-bottom: 6px; font-size: .9rem; }
input, button { width: 100%; padding: 10px 12px; border-radius: 8px; font: inherit; }
input { margin-bottom: 16px; border: 1px solid var(--line); background: var(--page); color: var(--text); }
button { border: 0; background: #0f766e; color: #fff; font-weight: 550; cursor: pointer; }
button:hover { background: #115e59; }
input:focus-visible, button:focus-visible { outline: 2px solid #0d9488; outline-offset: 2px; }
"""


def login_page(asks_for: str, why: str, problem: str = "") -> str:
    """Return the whole document.

    Args:
        asks_for: What is to be typed, such as "API key".
        why: What it is for.
        problem: Why the last try failed.
    """
    alert = f'<p role="alert">{escape(problem)}</p>' if problem else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Control LLM: log in</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>Control LLM, side by side</h1><p>{escape(why)}</p>{alert}"
        f'<form method="post" action="login"><label for="secret">{escape(asks_for)}</label>'
        '<input id="secret" name="secret" type="password" autocomplete="current-password" required autofocus>'
        "<button>Log in</button></form></main></body></html>"
    )
