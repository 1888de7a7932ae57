//! Later.
use crate::runner::cases;
cases!();
