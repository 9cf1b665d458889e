"""Many images on many machines: a plan cut into shards, each of which becomes one Parquet file.

    sources -> plan (manifest.parquet) -> shards -> part-00000.parquet ...

Any number of processes work on one plan, here or elsewhere, at once or one after the other: a shard that
is there and whole is skipped, one that was being made when its process was killed is made again, and the same
plan gives the same bytes.
"""
