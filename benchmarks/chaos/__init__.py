"""``make chaos``: the whole pipeline under every fault, and every row counted afterwards."""
