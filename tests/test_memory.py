import subprocess
import sys


def test_the_peak_of_a_process_leaves_out_the_memory_of_the_one_that_started_it():
    held = b"1" * 2**28
    command = "from semconv.memory import peak_resident; print(peak_resident())"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert 2**20 < int(done.stdout) < len(held)
