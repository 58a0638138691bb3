"""The page of the command line: what ``--help`` prints of every command, asked when the site is built."""

import os
import re
import subprocess
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

_HEAD = """# Command line

What `--help` prints. Exit codes: 0 done, 1 a defect of ctuq, 2 wrong input, 3 interrupted (`--resume` goes on), 4 not enough
memory or disk; of `design suggest` also 10 where it advises to stop, and 11 when the dose budget is spent.
"""


def help_of(*command: str) -> str:
    """What a command prints when it is asked for help."""
    environment = os.environ | {"COLUMNS": "110", "NO_COLOR": "1", "TERM": "dumb"}
    call = [sys.executable, "-m", "ctuq", *command, "--help"]
    text = subprocess.run(call, capture_output=True, text=True, env=environment, check=True).stdout
    return text.replace(str(Path.home()), "~").rstrip()


def commands(text: str) -> list[str]:
    """Names of the commands that a help text lists."""
    found = re.search(r"\{([\w,-]+)\}", text)
    return found[1].split(",") if found else []


def page() -> str:
    """A heading and the help of every command."""
    parts = [_HEAD]
    for name in commands(help_of()):
        text = help_of(name)
        parts.append(f"\n## ctuq {name}\n\n```text\n{text}\n```\n")
        if name == "design":
            parts += [f"\n### ctuq design {inner}\n\n```text\n{help_of(name, inner)}\n```\n" for inner in commands(text)]
    return "".join(parts)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page."""
    files.append(File.generated(config, "reference/command_line.md", content=page()))
    return files
