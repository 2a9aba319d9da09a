use super::*;

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn load(text: &str) -> ToolResult<Load> {
    Load::new(&SPEC.parse(&expand(&words(text)))?)
}

const GOOD: &str = "--topic t --num-records 10 --record-size 5 --throughput -1";

fn refusal(text: &str) -> String {
    load(text).unwrap_err().to_string()
}

#[test]
fn properties_follow_one_flag_and_the_last_flag_stands() {
    let text = format!("--producer-props acks=1 linger.ms=7 --producer-props acks=all a=b {GOOD}");
    let pairs = load(&text).unwrap().properties;
    assert_eq!(pairs, [("acks".into(), "all".into()), ("a".into(), "b".into())]);
    let text = format!("{GOOD} --command-property=acks=1 linger.ms=7 --bootstrap-server x:1");
    let pairs = load(&text).unwrap().properties;
    assert_eq!(last(&pairs, &["linger.ms"]), Some("7"));
    assert_eq!(last(&pairs, &["bootstrap.servers"]), Some("x:1"));
}

#[test]
fn what_kafka_refuses_is_refused_in_its_words() {
    let server = "--bootstrap-server x:1";
    for (text, expected) in [
        (
            "--topic t --num-records 0 --record-size 5 --throughput -1",
            "--num-records should be greater than zero.",
        ),
        (
            "--topic t --num-records 1 --record-size 0 --throughput -1",
            "--record-size should be greater than zero.",
        ),
        (
            "--topic t --num-records 1 --throughput -1",
            "one of the arguments --record-size --payload-file --payload-monotonic is required",
        ),
        (
            "--topic t --num-records 1 --throughput -1 --record-size 1 --payload-monotonic",
            "argument --payload-monotonic: not allowed with argument --record-size",
        ),
        (
            "--topic t --num-records 1 --throughput -1 --record-size 1 --warmup-records 1",
            "The value for --warmup-records must be strictly fewer than the number of records in the test, --num-records.",
        ),
        (
            "--topic t --num-records 1 --throughput -1 --record-size 1 --reporting-interval 0",
            "--reporting-interval should be greater than zero.",
        ),
        (
            "--topic t --num-records 1 --throughput -1 --record-size 1 --command-property foo",
            "Invalid property: foo",
        ),
    ] {
        assert_eq!(refusal(&format!("{text} {server}")), expected, "{text}");
    }
    assert!(refusal(GOOD).starts_with("At least one of --bootstrap-server,"));
    assert!(refusal(&format!("{GOOD} {server} --print-metrics")).contains("--print-metrics"));
    assert!(
        refusal("--topic t --num-records 1 --throughput 0 --record-size 1 --bootstrap-server x:1")
            .contains("--throughput")
    );
}

#[test]
fn a_transaction_is_asked_for_by_its_id_or_its_duration() {
    let transaction = |more: &str| {
        load(&format!("{GOOD} --bootstrap-server x:1 {more}"))
            .unwrap()
            .transaction
    };
    assert_eq!(transaction(""), None);
    assert_eq!(transaction("--transactional-id a"), Some(Duration::from_secs(3)));
    assert_eq!(
        transaction("--transaction-duration-ms 10"),
        Some(Duration::from_millis(10))
    );
    assert_eq!(
        transaction("--command-property transactional.id=a"),
        Some(Duration::from_secs(3))
    );
}

#[test]
fn defaults_are_those_of_javas_producer() {
    let config = client_config(&[]).unwrap();
    for (name, value) in [
        ("acks", "all"),
        ("batch.size", "16384"),
        ("linger.ms", "5"),
        ("enable.idempotence", "true"),
        ("queue.buffering.max.kbytes", "32768"),
    ] {
        assert_eq!(config.get(name), Some(value), "{name}");
    }
    let asked = [("acks", "1"), ("buffer.memory", "1048576"), ("linger.ms", "0")];
    let asked = asked.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = client_config(&asked).unwrap();
    assert_eq!(config.get("enable.idempotence"), Some("false"));
    assert_eq!(config.get("queue.buffering.max.kbytes"), Some("1024"));
    assert_eq!(config.get("linger.ms"), Some("0"));
    assert_eq!(config.get("buffer.memory"), None);
}

#[test]
fn a_throttle_sleeps_only_when_it_is_ahead_and_only_enough_at_once() {
    let mut throttle = Throttle::new(Some(1000.0));
    assert_eq!(throttle.due(100, Duration::from_millis(200)), None);
    assert_eq!(throttle.due(300, Duration::from_millis(200)), None);
    assert_eq!(
        throttle.due(301, Duration::from_millis(200)),
        Some(Duration::from_millis(2))
    );
    assert_eq!(throttle.due(302, Duration::from_millis(200)), None);
    assert_eq!(Throttle::new(None).due(u64::MAX, Duration::from_millis(1)), None);
}
