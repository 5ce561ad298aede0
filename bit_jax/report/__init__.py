"""Reports as HTML pages: the page builder, and the report of a run folder."""
