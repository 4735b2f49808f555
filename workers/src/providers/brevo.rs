//! Brevo.
use super::{AccountError, Ingredients, Provider};
use std::sync::Arc;
/// Placeholder.
/// # Errors
/// Always.
pub fn build_email(_: Ingredients) -> Result<Arc<dyn Provider>, AccountError> {
    Err(AccountError::Setting(String::new()))
}
/// Placeholder.
/// # Errors
/// Always.
pub fn build_sms(_: Ingredients) -> Result<Arc<dyn Provider>, AccountError> {
    Err(AccountError::Setting(String::new()))
}
