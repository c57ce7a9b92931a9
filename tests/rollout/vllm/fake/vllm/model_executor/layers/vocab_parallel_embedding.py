"""A stand-in."""


class VocabParallelEmbedding: ...
