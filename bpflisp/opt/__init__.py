"""Passes from function to function; none changes what a program does."""
