"""`python -m benchmarks`: every table, one after another."""

from benchmarks import native_forward, sweeps

if __name__ == "__main__":
    native_forward.main()
    sweeps.main([])
