//! The networks a provider calls from: a second check, never the only one.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::providers::AccountError;

/// Networks; none stand for any.
#[derive(Debug, Default)]
pub(super) struct Networks(Vec<IpNet>);

impl Networks {
    /// Reads `1.179.112.0/20, 2001:db8::/32`.
    pub(super) fn read(text: Option<&str>) -> Result<Self, AccountError> {
        let parts = text.unwrap_or_default().split(',').map(str::trim).filter(|part| !part.is_empty());
        let read = |part: &str| {
            part.parse().or_else(|_| part.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
                AccountError::Setting(format!("`{part}` is no network; wanted: one such as 1.179.112.0/20"))
            })
        };
        Ok(Self(parts.map(read).collect::<Result<_, _>>()?))
    }

    /// Whether an address lies in one of them.
    pub(super) fn have(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.is_empty() || self.0.iter().any(|network| network.contains(&address))
    }
}
