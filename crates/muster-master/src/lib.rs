//! muster-master
