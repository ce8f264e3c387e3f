"""The speed that the project has set itself, and whether it is there: a row a goal, each a ratio within one run."""

from __future__ import annotations
