import sys
from pathlib import Path

import pytest

from tests.walkthrough import Copy, blocks

pytestmark = pytest.mark.integration


@pytest.mark.slow
def test_every_step_of_the_walk_through_does_what_it_says(tmp_path, environment, query):
    copy = Copy(tmp_path / "checkout")
    path = f"{Path(sys.executable).parent}:{environment['PATH']}"
    answer = ""
    for block in blocks():
        if block.path or block.language == "diff":
            copy.change(block)
        elif block.language == "bash":
            command = ["bash", "-euo", "pipefail", "-c", block.text]
            answer = copy.run(command, block, {**environment, "PATH": path})
        elif block.language == "sql":
            answer = "\n".join(" | ".join(map(str, row)) for row in query(block.text))
        else:
            assert answer.strip() == block.text.strip(), block.heading
