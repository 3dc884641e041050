"""`python -m benchmarks`: every table, one after another."""

from benchmarks import native_forward

if __name__ == "__main__":
    native_forward.main()
