"""One scan on many workers of dask.distributed. Not beside the kernels' drivers: a change here compiles no kernel anew."""
