//! Model checks of tierce-lockfree.
