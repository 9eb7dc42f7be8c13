"""Rows that stay in an engine: DuckDB, Dask, Ray, Spark. Each file is one of them; `data.partitions` says what they are."""
