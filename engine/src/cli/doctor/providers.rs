//! The provider accounts: their settings and keys, and whether their hosts are there.

use dispatch_workers::providers::REGISTRY;
use futures_util::future::join_all;
use reqwest::Url;

use super::{
    Check, Providers,
    reach::{self, Protection},
};
use crate::settings::{ProviderSettings, Settings};

pub(super) async fn examine(settings: &Settings, providers: Providers) -> Vec<Check> {
    if settings.providers.is_empty() {
        let mend = "name one under [providers], or machines without the roles scheduler and worker need none";
        return vec![Check::warn("providers", "there is no account, so nothing can be sent", mend)];
    }
    let problems = settings.check();
    let mut checks = Vec::new();
    for (name, account) in &settings.providers {
        let prefix = format!("providers.{name}");
        let mut own = problems
            .iter()
            .filter(|problem| {
                problem.key.strip_prefix(&prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
            .peekable();
        if own.peek().is_none() {
            let key =
                account.key_place(name).map_or("it needs no key".to_owned(), |place| format!("its key is in {place}"));
            checks.push(Check::ok(&prefix, format!("{} account; {key}", account.kind)));
        }
        checks.extend(own.map(|problem| Check::refused(&problem.key, &problem.message)));
    }
    if providers == Providers::Reached {
        checks.extend(join_all(settings.providers.iter().map(|(name, account)| host(name, account))).await);
    }
    checks
}

/// Connects to an account's host; nothing is asked there.
async fn host(name: &str, account: &ProviderSettings) -> Check {
    let check = format!("providers.{name}.host");
    let default = REGISTRY.iter().find(|entry| entry.kind == account.kind).and_then(|entry| entry.default_url);
    let url = account.url.as_deref().or(default).and_then(|url| Url::parse(url).ok());
    let Some((url, host)) = url.as_ref().and_then(|url| Some((url, url.host_str()?))) else {
        return Check::fail(check, "it is not known where it is reached", format!("set providers.{name}.url"));
    };
    let tls = Protection::Tls(account.ca_file.as_deref());
    let (protection, port, said) = match url.scheme() {
        "https" => (tls, 443, "answers with a certificate that is trusted"),
        "smtps" => (tls, 465, "answers with a certificate that is trusted"),
        // Whether it offers STARTTLS would have to be asked.
        "smtp" => (Protection::None, 587, "answers"),
        _ => (Protection::None, 80, "answers, without TLS"),
    };
    let port = url.port().unwrap_or(port);
    match reach::connect(host, port, protection).await {
        Ok(_) => Check::ok(check, format!("{host}:{port} {said}")),
        Err(why) => Check::fail(
            check,
            format!("{host}:{port} cannot be used: {why}"),
            "check the address in `url`, this machine's DNS and firewall, and with a proxy of your own its `ca_file`",
        ),
    }
}
