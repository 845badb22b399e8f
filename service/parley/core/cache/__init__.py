"""The cache of answers: which requests and answers it is for, their keys, and the reads and writes of a worker."""
