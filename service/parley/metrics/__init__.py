"""The metrics of one worker: what calls add to, what is collected at a scrape, and the server of the scrape."""
