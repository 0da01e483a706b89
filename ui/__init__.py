"""The comparison page: base and controlled model side by side, as a client of the HTTP API and nothing else.

Knows no other package of this project, no torch and no vLLM. Importing it is instant; Gradio is imported by
`ui.app`, `ui.page` and `ui.panes` only.
"""
