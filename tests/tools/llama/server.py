"""llama.cpp's own HTTP server on a free port of loopback: prints its origin and serves until its input ends.

Runs in the environment that tests/tools/install-python makes of the requirements beside this file.
"""

import sys

import xllamacpp  # type: ignore[import-not-found] # it lives in an environment of its own

parameters = xllamacpp.CommonParams()
parameters.model.path = sys.argv[1]
parameters.model_alias = {sys.argv[2]}
parameters.port = 0
parameters.n_ctx = 1024
# One call at a time: the next one is answered only if a cancelled one has really stopped.
parameters.n_parallel = 1
parameters.embedding = True
parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
parameters.warmup = False
# Threads that wait for one another are slow where others use the cores too.
parameters.cpuparams.n_threads = 1
server = xllamacpp.Server(parameters)
print(server.listening_address, flush=True)
sys.stdin.read()
