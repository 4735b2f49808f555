//! SMTP.
use super::{AccountError, Ingredients, Provider};
use std::sync::Arc;
/// Placeholder.
/// # Errors
/// Always.
pub fn build(_: Ingredients) -> Result<Arc<dyn Provider>, AccountError> {
    Err(AccountError::Setting(String::new()))
}
