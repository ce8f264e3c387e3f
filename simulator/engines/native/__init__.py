"""The native engine: programs translated to x86-64 and run in the Unicorn emulator."""
