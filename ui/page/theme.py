"""The theme: system fonts, few colours, light and dark by the reader's own setting; `style.css` does the rest.

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
    body_text_color_subdued="#566579",
    body_text_color_subdued_dark="#a3b3c7",
    input_background_fill="#ffffff",
    input_background_fill_dark="#1b2739",
    input_border_width="1px",
    input_border_color="#dbe2ea",
    input_border_color_dark="#3a4a61",
    input_border_color_focus="#0f766e",
    input_border_color_focus_dark="#2dd4bf",
    input_radius="8px",
    input_placeholder_color="#64748b",
    input_placeholder_color_dark="#8fa1b8",
    checkbox_background_color_selected="#0f766e",
    checkbox_background_color_selected_dark="#0f766e",
    slider_color="#0f766e",
    slider_color_dark="#2dd4bf",
    button_primary_background_fill="#0f766e",
    button_primary_background_fill_hover="#115e59",
    button_primary_background_fill_dark="#0f766e",
    button_primary_background_fill_hover_dark="#115e59",
    button_primary_text_color="#ffffff",
    button_secondary_background_fill="#e2e8f0",
    button_secondary_background_fill_dark="#2a384d",
)
