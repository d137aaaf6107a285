"""Run learners against one another, measure them, and write what came out as tables and a page."""
