"""`python -m tests.verification.mutation [WORD...] [--check]`: run mutants by hand."""

from __future__ import annotations

import argparse
import sys
import time

from tests.verification.mutation.mutant import BadMutant
from tests.verification.mutation.mutants import MUTANTS
from tests.verification.mutation.runner import Outcome, Runner


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.verification.mutation", description=__doc__
    )
    parser.add_argument("words", nargs="*", help="only mutants whose id contains one of these")
    parser.add_argument("--check", action="store_true", help="only whether each can be applied")
    arguments = parser.parse_args()
    bad = 0
    with Runner() as runner:
        for mutant in MUTANTS:
            if arguments.words and not any(word in mutant.id for word in arguments.words):
                continue
            began = time.monotonic()
            try:
                mutant.check()
                if arguments.check:
                    continue
                verdict = runner.run(mutant)
            except BadMutant as err:
                bad += 1
                print(f"NOT APPLIED {mutant.id}: {err}", flush=True)
                continue
            caught = verdict.outcome is Outcome.CAUGHT
            bad += not caught
            print(
                f"{verdict.outcome.name} ({time.monotonic() - began:.1f} s) {mutant.id}: "
                f"{verdict.detail[:160] if caught else verdict.detail[-1500:]}",
                flush=True,
            )
    print(f"{bad} of them not as they should be")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
