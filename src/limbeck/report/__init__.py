"""Results in, one offline HTML file out: `RunRecord`, `render`."""
