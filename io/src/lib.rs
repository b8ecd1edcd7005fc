//! The io_uring pipeline, devices, journal and recovery of tierce.
