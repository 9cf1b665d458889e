"""HTTP: the page of `nshot serve` and the endpoint, thin routes above a session that needs no browser."""
