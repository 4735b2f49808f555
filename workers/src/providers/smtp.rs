//! SMTP.
use std::sync::Arc;
use super::{AccountError, Ingredients, Provider};
/// Placeholder.
/// # Errors
/// Always.
pub fn build(_: Ingredients) -> Result<Arc<dyn Provider>, AccountError> { Err(AccountError::Setting(String::new())) }
