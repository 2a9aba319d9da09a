//! `listeners`, `advertised.listeners`, `listener.security.protocol.map`: read and checked as Kafka
//! does, in Kafka's words.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::ConfigError;

/// What a listener speaks. Only plaintext is implemented; the others refuse to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecurityProtocol {
    Plaintext,
    Ssl,
    SaslPlaintext,
    SaslSsl,
}

impl SecurityProtocol {
    /// Kafka's number of the protocol.
    #[must_use]
    pub fn id(self) -> i16 {
        match self {
            Self::Plaintext => 0,
            Self::Ssl => 1,
            Self::SaslPlaintext => 2,
            Self::SaslSsl => 3,
        }
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
            Self::Ssl => "SSL",
            Self::SaslPlaintext => "SASL_PLAINTEXT",
            Self::SaslSsl => "SASL_SSL",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Plaintext, Self::Ssl, Self::SaslPlaintext, Self::SaslSsl];
        all.into_iter()
            .find(|protocol| protocol.name().eq_ignore_ascii_case(name))
    }
}

/// One listener that the broker opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Upper case, such as `PLAINTEXT` or `EXTERNAL`.
    pub name: String,
    pub security_protocol: SecurityProtocol,
    /// Where to bind; `None`: all interfaces.
    pub host: Option<String>,
    /// 0: any free port.
    pub port: u16,
    /// What clients that came by this listener are told to connect to.
    pub advertised_host: String,
    /// 0: the port that was bound.
    pub advertised_port: u16,
}

/// `NAME://host:port`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) name: String,
    pub(super) protocol: SecurityProtocol,
    pub(super) host: Option<String>,
    pub(super) port: u16,
}

pub(super) type ProtocolMap = BTreeMap<String, SecurityProtocol>;

/// What the settings say about listeners.
#[derive(Debug)]
pub(super) struct ListenerSettings<'a> {
    pub(super) listeners: &'a [String],
    pub(super) advertised: Option<&'a [String]>,
    pub(super) protocol_map: &'a str,
    /// The map was not set by anyone, so controllers' listeners are plaintext without being named.
    pub(super) protocol_map_is_default: bool,
    pub(super) controller_names: &'a [String],
    pub(super) inter_broker_name: Option<&'a str>,
    /// Told to clients where neither setting names a host.
    pub(super) fallback_host: &'a str,
}

/// The listeners to open, in the order of the setting; those of controllers are left out.
pub(super) fn resolve(settings: &ListenerSettings<'_>) -> Result<Vec<Listener>, ConfigError> {
    let map = protocol_map(settings)?;
    let all = endpoints(settings.listeners, &map, true)?;
    let is_controllers = |name: &str| {
        settings
            .controller_names
            .iter()
            .any(|own| own.eq_ignore_ascii_case(name))
    };
    let own: Vec<&Endpoint> = all
        .iter()
        .filter(|endpoint| !is_controllers(&endpoint.name))
        .collect();
    if own.is_empty() {
        return Err(requirement(
            "There must be at least one broker advertised listener. Perhaps all listeners appear in \
             controller.listener.names?",
        ));
    }
    let advertised = match settings.advertised {
        Some(advertised) => endpoints(advertised, &map, false)?,
        None => all.clone(),
    };
    check_advertised(&advertised, &all, &is_controllers)?;
    check_inter_broker(settings.inter_broker_name, &map, &own)?;
    if let Some(secure) = own
        .iter()
        .find(|endpoint| endpoint.protocol != SecurityProtocol::Plaintext)
    {
        return Err(ConfigError::Invalid(format!(
            "Listener {} uses {}, which Milena does not implement yet. Starting without it would leave the \
             listener unprotected, so the broker does not start. Map the listener to PLAINTEXT in \
             listener.security.protocol.map, or remove it from listeners.",
            secure.name,
            secure.protocol.name()
        )));
    }
    Ok(own
        .into_iter()
        .map(|endpoint| listener(endpoint, &advertised, settings.fallback_host))
        .collect())
}

fn listener(endpoint: &Endpoint, advertised: &[Endpoint], fallback_host: &str) -> Listener {
    let shown = advertised
        .iter()
        .find(|other| other.name == endpoint.name)
        .unwrap_or(endpoint);
    Listener {
        name: endpoint.name.clone(),
        security_protocol: endpoint.protocol,
        host: endpoint.host.clone(),
        port: endpoint.port,
        advertised_host: match shown.host.as_deref() {
            // A listener that advertised.listeners leaves out.
            Some(host) if is_wildcard(host) => fallback_host.to_owned(),
            Some(host) => host.to_owned(),
            None => fallback_host.to_owned(),
        },
        advertised_port: shown.port,
    }
}

fn requirement(sentence: impl Into<String>) -> ConfigError {
    ConfigError::Requirement(sentence.into())
}

fn protocol_map(settings: &ListenerSettings<'_>) -> Result<ProtocolMap, ConfigError> {
    const NAME: &str = "listener.security.protocol.map";
    let mut map = ProtocolMap::new();
    for item in super::value::split_list(settings.protocol_map) {
        let Some((listener, protocol)) = item.rsplit_once(':') else {
            return Err(ConfigError::Invalid(format!(
                "Error parsing configuration property '{NAME}': `{item}` is not of the form LISTENER:PROTOCOL"
            )));
        };
        let protocol = SecurityProtocol::from_name(protocol.trim()).ok_or_else(|| {
            ConfigError::Invalid(format!(
                "Invalid security protocol `{protocol}` defined in {NAME}"
            ))
        })?;
        map.insert(listener.trim().to_uppercase(), protocol);
    }
    let is_secure = |name: &str| {
        SecurityProtocol::from_name(name).is_some_and(|protocol| protocol != SecurityProtocol::Plaintext)
    };
    let any_secure = settings.controller_names.iter().any(|name| is_secure(name))
        || settings
            .listeners
            .iter()
            .any(|text| text.split_once("://").is_some_and(|(name, _)| is_secure(name)));
    if settings.protocol_map_is_default && !any_secure {
        for name in settings.controller_names {
            map.entry(name.to_uppercase())
                .or_insert(SecurityProtocol::Plaintext);
        }
    }
    Ok(map)
}

fn endpoints(
    texts: &[String],
    map: &ProtocolMap,
    distinct_ports: bool,
) -> Result<Vec<Endpoint>, ConfigError> {
    let fail = |sentence: String| {
        Err(ConfigError::Invalid(format!(
            "Error creating broker listeners from '[{}]': {sentence}",
            texts.join(", ")
        )))
    };
    let mut found: Vec<Endpoint> = Vec::new();
    for text in texts {
        let Some((name, host, port)) = parse_endpoint(text) else {
            return fail(format!("Unable to parse {text} to a broker endpoint"));
        };
        let Some(protocol) = map.get(&name).copied() else {
            return fail(format!("No security protocol defined for listener {name}"));
        };
        found.push(Endpoint {
            name,
            protocol,
            host,
            port,
        });
    }
    for (at, endpoint) in found.iter().enumerate() {
        let earlier = found.get(..at).unwrap_or_default();
        if earlier.iter().any(|other| other.name == endpoint.name) {
            return fail(format!(
                "Each listener must have a different name, listeners: [{}]",
                texts.join(", ")
            ));
        }
        let clashes =
            |other: &&Endpoint| other.port == endpoint.port && !one_is_ipv4_other_ipv6(other, endpoint);
        if distinct_ports && endpoint.port != 0 && earlier.iter().any(|other| clashes(&other)) {
            return fail(format!(
                "Each listener must have a different port, listeners: [{}]",
                texts.join(", ")
            ));
        }
    }
    Ok(found)
}

/// Name in upper case, host without brackets, port.
fn parse_endpoint(text: &str) -> Option<(String, Option<String>, u16)> {
    let (name, address) = text.trim().rsplit_once("://")?;
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').unwrap_or(host);
    let host = host.strip_suffix(']').unwrap_or(host);
    let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '%' | '.' | '_' | ':');
    if !host.chars().all(is_host) {
        return None;
    }
    let host = Some(host.to_owned()).filter(|host| !host.is_empty());
    Some((name.to_uppercase(), host, port.parse().ok()?))
}

/// Two listeners may share a port if they cannot meet: one address of each family.
fn one_is_ipv4_other_ipv6(one: &Endpoint, other: &Endpoint) -> bool {
    let (Some(one), Some(other)) = (one.host.as_deref(), other.host.as_deref()) else {
        return false;
    };
    let is_v4 = |host: &str| host.parse::<Ipv4Addr>().is_ok();
    let is_v6 = |host: &str| host.parse::<Ipv6Addr>().is_ok();
    (is_v4(one) && is_v6(other)) || (is_v6(one) && is_v4(other))
}

/// `0.0.0.0` and `::` mean every interface here and nothing anywhere else.
pub(super) fn is_wildcard(host: &str) -> bool {
    host == "0.0.0.0"
        || host
            .parse::<Ipv6Addr>()
            .is_ok_and(|address| address.is_unspecified())
}

fn check_advertised(
    advertised: &[Endpoint],
    all: &[Endpoint],
    is_controllers: &dyn Fn(&str) -> bool,
) -> Result<(), ConfigError> {
    let shown: Vec<&Endpoint> = advertised
        .iter()
        .filter(|endpoint| !is_controllers(&endpoint.name))
        .collect();
    if shown.is_empty() {
        return Err(requirement(
            "There must be at least one broker advertised listener. Perhaps all listeners appear in \
             controller.listener.names?",
        ));
    }
    let names = |endpoints: &[&Endpoint]| {
        endpoints
            .iter()
            .map(|endpoint| endpoint.name.clone())
            .collect::<Vec<_>>()
            .join(",")
    };
    if shown
        .iter()
        .any(|endpoint| !all.iter().any(|other| other.name == endpoint.name))
    {
        return Err(requirement(format!(
            "advertised.listeners listener names must be equal to or a subset of the ones defined in \
             listeners. Found {}. The valid options based on the current configuration are {}",
            names(&shown),
            names(&all.iter().collect::<Vec<_>>())
        )));
    }
    if shown
        .iter()
        .any(|endpoint| endpoint.host.as_deref().is_some_and(is_wildcard))
    {
        return Err(requirement(
            "advertised.listeners cannot use the nonroutable meta-address 0.0.0.0. Use a routable IP address. \
             Clients are told this address and have to reach it: set advertised.listeners, for example to \
             PLAINTEXT://localhost:9092 where clients run on this machine.",
        ));
    }
    Ok(())
}

fn check_inter_broker(name: Option<&str>, map: &ProtocolMap, own: &[&Endpoint]) -> Result<(), ConfigError> {
    let Some(name) = name.map(str::to_uppercase) else {
        return Ok(());
    };
    if !map.contains_key(&name) {
        return Err(ConfigError::Invalid(format!(
            "Listener with name {name} defined in inter.broker.listener.name not found in \
             listener.security.protocol.map."
        )));
    }
    if !own.iter().any(|endpoint| endpoint.name == name) {
        return Err(requirement(format!(
            "inter.broker.listener.name must be a listener name defined in advertised.listeners. The valid \
             options based on currently configured listeners are {}",
            own.iter()
                .map(|endpoint| endpoint.name.clone())
                .collect::<Vec<_>>()
                .join(",")
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL";

    fn resolved(
        listeners: &str,
        advertised: Option<&str>,
        map: Option<&str>,
    ) -> Result<Vec<Listener>, String> {
        let listeners = super::super::value::split_list(listeners);
        let advertised = advertised.map(super::super::value::split_list);
        resolve(&ListenerSettings {
            listeners: &listeners,
            advertised: advertised.as_deref(),
            protocol_map: map.unwrap_or(MAP),
            protocol_map_is_default: map.is_none(),
            controller_names: &["CONTROLLER".to_owned()],
            inter_broker_name: None,
            fallback_host: "localhost",
        })
        .map_err(|error| error.to_string())
    }

    fn shown(listeners: &str, advertised: Option<&str>, map: Option<&str>) -> Vec<String> {
        let own = resolved(listeners, advertised, map).unwrap();
        own.iter()
            .map(|l| {
                format!(
                    "{}={}:{}>{}:{}",
                    l.name,
                    l.host.as_deref().unwrap_or("*"),
                    l.port,
                    l.advertised_host,
                    l.advertised_port
                )
            })
            .collect()
    }

    #[test]
    fn listeners_are_read_as_kafka_reads_them() {
        assert_eq!(
            shown("PLAINTEXT://:9092", None, None),
            ["PLAINTEXT=*:9092>localhost:9092"]
        );
        assert_eq!(
            shown("plaintext://[::1]:9092", None, None),
            ["PLAINTEXT=::1:9092>::1:9092"]
        );
        assert_eq!(shown("PLAINTEXT://::1:0", None, None), ["PLAINTEXT=::1:0>::1:0"]);
        assert_eq!(
            shown(
                "PLAINTEXT://:9092, CONTROLLER://:9093",
                Some("PLAINTEXT://my_host:29092,CONTROLLER://my_host:9093"),
                None
            ),
            ["PLAINTEXT=*:9092>my_host:29092"]
        );
        assert_eq!(
            shown(
                "CONTROLLER://:29093,PLAINTEXT_HOST://:9092,PLAINTEXT://:19092",
                Some("PLAINTEXT_HOST://localhost:9092,PLAINTEXT://broker:19092"),
                Some("CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PLAINTEXT_HOST:PLAINTEXT")
            ),
            [
                "PLAINTEXT_HOST=*:9092>localhost:9092",
                "PLAINTEXT=*:19092>broker:19092"
            ]
        );
        assert_eq!(
            shown(
                "A://127.0.0.1:9092,B://[::1]:9092",
                None,
                Some("A:PLAINTEXT,B:PLAINTEXT")
            )
            .len(),
            2,
            "one port, two families"
        );
    }

    #[test]
    fn wrong_listeners_are_refused_in_kafkas_words() {
        let refused = |listeners: &str, advertised: Option<&str>, map: Option<&str>| {
            resolved(listeners, advertised, map).unwrap_err()
        };
        assert!(refused("PLAINTEXT://0.0.0.0:9092", None, None).starts_with(
            "advertised.listeners cannot use the nonroutable meta-address 0.0.0.0. Use a routable IP address."
        ));
        assert!(refused("PLAINTEXT://:9092", Some("PLAINTEXT://0.0.0.0:9092"), None).contains("nonroutable"));
        assert_eq!(
            refused("PLAINTEXT://:9092,EXT://:9094", None, None),
            "Error creating broker listeners from '[PLAINTEXT://:9092, EXT://:9094]': No security protocol defined for listener EXT"
        );
        assert_eq!(
            refused("PLAINTEXT://:9092,PLAINTEXT://:9094", None, None),
            "Error creating broker listeners from '[PLAINTEXT://:9092, PLAINTEXT://:9094]': Each listener must have a different name, listeners: [PLAINTEXT://:9092, PLAINTEXT://:9094]"
        );
        for text in [
            "PLAINTEXT//:9092",
            "PLAINTEXT://:abc",
            "PLAINTEXT://:70000",
            "PLAINTEXT://a b:1",
            "PLAINTEXT://h",
        ] {
            assert_eq!(
                refused(text, None, None),
                format!(
                    "Error creating broker listeners from '[{text}]': Unable to parse {text} to a broker endpoint"
                )
            );
        }
        assert!(
            refused("A://:9092,B://:9092", None, Some("A:PLAINTEXT,B:PLAINTEXT"))
                .contains("Each listener must have a different port")
        );
        assert!(
            refused("CONTROLLER://:9093", None, None)
                .starts_with("There must be at least one broker advertised listener.")
        );
        assert!(
            refused(
                "PLAINTEXT://:9092",
                Some("EXTERNAL://h:1"),
                Some("PLAINTEXT:PLAINTEXT,EXTERNAL:PLAINTEXT")
            )
            .contains("must be equal to or a subset")
        );
        assert_eq!(
            refused("PLAINTEXT://:9092", None, Some("PLAINTEXT:FOO")),
            "Invalid security protocol `FOO` defined in listener.security.protocol.map"
        );
    }

    #[test]
    fn a_listener_that_would_be_unprotected_refuses_to_start() {
        assert!(
            resolved("SSL://:9093", None, None)
                .unwrap_err()
                .contains("Listener SSL uses SSL, which Milena does not implement yet")
        );
        assert!(
            resolved("X://:9093", None, Some("X:SASL_PLAINTEXT"))
                .unwrap_err()
                .contains("SASL_PLAINTEXT")
        );
    }
}
