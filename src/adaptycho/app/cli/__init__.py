"""The command line. Every command says what it does in a microscopist's words and, with --json, prints one object for other programs."""

import os
import sys


def main(arguments: list[str] | None = None) -> int:
    """Runs the program.

    A user's mistake is one sentence on stderr and exit code 2, as is a full disk or memory; what nobody foresaw is one sentence and exit
    code 1. With ADAPTYCHO_DEBUG set both are tracebacks. Ctrl-C gives 130.
    """
    try:
        # Loading takes time in which somebody may press Ctrl-C, so that it has to be here.
        from adaptycho.app.cli.program import run

        return run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if os.environ.get("ADAPTYCHO_DEBUG"):
            raise
        from adaptycho.app.cli.output import explain, let_go, say

        code, sentence = explain(error)
        let_go()
        say(f"adaptycho: {' '.join(sentence.split())}", err=True)
        return code
