//! Whole-system tests: the real binaries, used as people use them.
