"""`transformer-lens verify`."""

import json
import subprocess
import sys
from pathlib import Path

from census.tiny import tiny_model

COMMAND = str(Path(sys.executable).with_name("transformer-lens"))


def run(*arguments):
    return subprocess.run([COMMAND, "verify", *arguments], capture_output=True, text=True, check=False)


def test_a_local_folder_that_no_spec_describes_is_verified(tmp_path):
    tiny_model("mamba").save_pretrained(tmp_path)
    done = run(str(tmp_path), "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert (found["model"], found["known_by"], found["passed"]) == ("MambaForCausalLM", "resolver", True)
