"""Mutation tests of everything outside the core: each mutant is one small fault in one function of
coord, and the tests that must notice it are named with it.

    python -m tests.verification.mutation                # run all mutants
    python -m tests.verification.mutation heartbeat      # those whose name or place contains a word
    python -m tests.verification.mutation --check        # only whether each can be applied
"""
