"""Which nodes hold which layers: `problem` says what is asked, `search` finds the best answer."""
