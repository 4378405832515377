"""`python -m unispeech` is the `unispeech` command."""

from unispeech.cli import main

if __name__ == "__main__":
    main()
