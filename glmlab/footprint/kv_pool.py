"""How many tokens a KV pool holds, rounded to blocks as vLLM rounds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KvPool:
    """The KV pool of one rank.

    Source: ``get_kv_cache_config_from_groups``, ``get_kv_cache_capacity`` and ``BlockPool`` of vLLM
    0.32.0 (v1/core/kv_cache_utils.py, block_pool.py), the same in 0.26.0.

    Parameters
    ----------
    size : float
        Bytes, none where the memory does not reach.
    bytes_per_token : int
        What one token of a sequence takes on the rank, all its layers together: where ranks share a
        sequence, this rank's share of it.
    block_size : int
        Tokens of one block.
    context_ranks : int
        Ranks that share the KV of one sequence (decode context parallelism): a block then stands
        for as many times more tokens.
    """

    size: float
    bytes_per_token: int
    block_size: int
    context_ranks: int = 1

    @property
    def block_bytes(self) -> int:
        return self.bytes_per_token * self.tokens_per_block

    @property
    def tokens_per_block(self) -> int:
        """Tokens of the whole sequence that one block of this rank stands for."""
        return self.block_size * self.context_ranks

    @property
    def blocks(self) -> int:
        return max(0, int(self.size // self.block_bytes))

    def tokens(self, max_model_len: int) -> int:
        """What vLLM reports: the requests of full length that fit, times that length.

        A request takes whole blocks, so where the length is no multiple of a block the number is a
        little below blocks times tokens.
        """
        blocks_per_request = -(-max_model_len // self.tokens_per_block)
        return int(self.blocks / blocks_per_request * max_model_len)

    @property
    def longest(self) -> int:
        """Tokens of the longest single sequence; one block is vLLM's own (the null block)."""
        return max(0, self.blocks - 1) * self.tokens_per_block

    def bytes_for(self, context: int) -> int:
        """Bytes that a pool needs to hold one sequence of so many tokens."""
        return (-(-context // self.tokens_per_block) + 1) * self.block_bytes
