//! muster-sdk
