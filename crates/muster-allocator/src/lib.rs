//! muster-allocator
