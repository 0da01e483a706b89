"""The page as Gradio components and events. Only these modules and `ui.app` import Gradio."""
