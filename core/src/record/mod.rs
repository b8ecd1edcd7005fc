//! The records on a device, one file each: layout, encode, decode, checks.
