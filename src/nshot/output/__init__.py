"""Where answers go: lines, tables, Parquet, sorted folders."""
