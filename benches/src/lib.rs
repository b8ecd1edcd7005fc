//! Workloads, traces and measurement for tierce.
