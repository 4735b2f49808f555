//! setting_aside
