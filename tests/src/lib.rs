//! Helpers of the end-to-end tests: a scratch directory with a mount that is always taken down.
