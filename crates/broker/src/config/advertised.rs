//! A wrong advertised address is the first thing that beginners meet: the client connects, is told an
//! address that it cannot reach, and waits. These functions say it, at start and when it shows.

use std::net::{IpAddr, Ipv4Addr};

use super::listeners::Listener;

/// What looks wrong before any client came. `resolve` gives the addresses of a host name, none if the
/// name is unknown; `bound_port` is the port that the listener really has.
#[must_use]
pub fn diagnose(listener: &Listener, bound_port: u16, resolve: &dyn Fn(&str) -> Vec<IpAddr>) -> Vec<String> {
    let (name, host) = (&listener.name, &listener.advertised_host);
    let port = if listener.advertised_port == 0 {
        bound_port
    } else {
        listener.advertised_port
    };
    let mut sentences = Vec::new();
    let addresses = match host.parse::<IpAddr>() {
        Ok(address) => vec![address],
        // Not every container has a file that knows it, but every client does.
        Err(_) if is_loopback(host) => vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
        Err(_) => resolve(host),
    };
    if addresses.is_empty() {
        sentences.push(format!(
            "Listener {name} tells clients to connect to {host}:{port}, but the name {host} is unknown on this \
             machine. Clients that do not know it either will connect once and then wait. Set \
             advertised.listeners={name}://<a name or address that clients reach>:{port}."
        ));
    }
    if port != bound_port {
        sentences.push(format!(
            "Listener {name} is on port {bound_port} but tells clients to connect to {host}:{port}. That works \
             only where something forwards {port} to {bound_port}, such as a container's published port."
        ));
    }
    let local_only = listener.host.as_deref().is_some_and(is_loopback);
    if local_only && !addresses.is_empty() && !addresses.iter().any(|address| address.is_loopback()) {
        sentences.push(format!(
            "Listener {name} accepts connections only from this machine, but tells clients to connect to \
             {host}:{port}, where nothing of it listens. Set listeners={name}://:{bound_port} or advertise \
             {name}://localhost:{bound_port}."
        ));
    }
    sentences
}

/// What the first client from elsewhere shows: it came by a listener that tells it to connect to its
/// own machine.
#[must_use]
pub fn diagnose_client(listener: &Listener, bound_port: u16, client: IpAddr) -> Option<String> {
    let client = client.to_canonical();
    if client.is_loopback() || !is_loopback(&listener.advertised_host) {
        return None;
    }
    let (name, host) = (&listener.name, &listener.advertised_host);
    let port = if listener.advertised_port == 0 {
        bound_port
    } else {
        listener.advertised_port
    };
    Some(format!(
        "A client at {client} came by listener {name} and was told to connect to {host}:{port}, which on its \
         machine means that machine. If it cannot produce or consume, start the broker with \
         advertised.listeners={name}://<this machine's name or address>:{port}."
    ))
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SecurityProtocol;

    fn listener(host: Option<&str>, port: u16, advertised_host: &str, advertised_port: u16) -> Listener {
        Listener {
            name: "PLAINTEXT".to_owned(),
            security_protocol: SecurityProtocol::Plaintext,
            host: host.map(str::to_owned),
            port,
            advertised_host: advertised_host.to_owned(),
            advertised_port,
        }
    }

    fn resolve(host: &str) -> Vec<IpAddr> {
        match host {
            "kafka.example" => vec!["192.0.2.7".parse().unwrap()],
            _ => Vec::new(),
        }
    }

    #[test]
    fn a_good_address_needs_no_words() {
        assert!(diagnose(&listener(None, 9092, "localhost", 9092), 9092, &resolve).is_empty());
        assert!(diagnose(&listener(None, 0, "kafka.example", 0), 40123, &resolve).is_empty());
    }

    #[test]
    fn a_name_that_nobody_knows_is_said() {
        let sentences = diagnose(&listener(None, 9092, "brokr", 9092), 9092, &resolve);
        assert!(
            sentences[0].contains("brokr:9092") && sentences[0].contains("advertised.listeners=PLAINTEXT://")
        );
    }

    #[test]
    fn a_port_that_needs_forwarding_is_said() {
        let sentences = diagnose(&listener(None, 9092, "localhost", 29092), 9092, &resolve);
        assert!(sentences[0].contains("29092") && sentences[0].contains("port 9092"));
    }

    #[test]
    fn an_address_where_the_listener_is_not_bound_is_said() {
        let sentences = diagnose(
            &listener(Some("127.0.0.1"), 9092, "kafka.example", 9092),
            9092,
            &resolve,
        );
        assert!(sentences[0].contains("only from this machine"));
    }

    #[test]
    fn a_client_from_elsewhere_that_is_sent_to_its_own_machine_is_said() {
        let local = listener(None, 9092, "localhost", 9092);
        let sentence = diagnose_client(&local, 9092, "::ffff:192.0.2.9".parse().unwrap()).unwrap();
        assert!(sentence.contains("192.0.2.9") && sentence.contains("localhost:9092"));
        assert_eq!(diagnose_client(&local, 9092, "127.0.0.1".parse().unwrap()), None);
        assert_eq!(diagnose_client(&local, 9092, "::1".parse().unwrap()), None);
        let reachable = listener(None, 9092, "kafka.example", 9092);
        assert_eq!(
            diagnose_client(&reachable, 9092, "192.0.2.9".parse().unwrap()),
            None
        );
    }
}
