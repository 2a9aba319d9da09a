use super::*;

fn load(text: &str) -> ToolResult<Load> {
    let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    Load::new(&SPEC.parse(&named(&words)?)?)
}

#[test]
fn positions_and_names_ask_for_the_same() {
    let by_name =
        load("--bootstrap-server x:1 --topic t --num-records 10 --producer-acks all --record-size 5");
    assert_eq!(load("x:1 t 10 all 5").unwrap(), by_name.unwrap());
    assert!(
        load("x:1 t 10")
            .unwrap_err()
            .to_string()
            .starts_with("Invalid number of arguments. Expected 5 or 6 positional arguments, but got 3.")
    );
}

#[test]
fn what_kafka_refuses_is_refused_in_its_words() {
    let refusal = |text: &str| load(text).unwrap_err().to_string();
    assert!(refusal("x:1 t 10 0 5").starts_with("Invalid value for --producer-acks."));
    assert_eq!(
        refusal("x:1 t 0 1 5"),
        "Value for --num-records must be a positive integer."
    );
    let named = "--bootstrap-server x:1 --topic t --num-records 1 --producer-acks 1";
    for (more, name) in [
        ("--record-size -1", "record-size"),
        ("--record-size 1 --record-key-size -1", "record-key-size"),
        ("--record-size 1 --num-headers -1", "num-headers"),
        (
            "--record-size 1 --record-header-key-size -1",
            "record-header-key-size",
        ),
    ] {
        let expected = format!("Value for --{name} must be a non-negative integer.");
        assert_eq!(refusal(&format!("{named} {more}")), expected);
    }
    assert!(
        refusal(&format!("{named} --record-size 1 --record-header-size -2"))
            .ends_with("or -1 for null header value.")
    );
}

#[test]
fn a_record_has_the_key_and_the_headers_that_were_asked_for() {
    let text = "--bootstrap-server x:1 --topic t --num-records 1 --producer-acks 1 --record-size 3 --record-key-size 4 --num-headers 2 --record-header-size -1 --record-header-key-size 5";
    let record = load(text).unwrap().record(&mut Random(0));
    assert_eq!(record.value.as_ref().map(Bytes::len), Some(3));
    assert_eq!(record.key.as_ref().map(Bytes::len), Some(4));
    assert_eq!(record.headers.len(), 2);
    assert!(
        record
            .headers
            .iter()
            .all(|header| header.key.len() == 5 && header.value.is_none())
    );
    let found = records(&batch(&record).unwrap()).unwrap();
    validate(&record, &found).unwrap();
    let other = NewRecord {
        value: Some(Bytes::from_static(b"abc")),
        ..record.clone()
    };
    assert!(validate(&other, &found).is_err());
    assert!(validate(&record, &[found.clone(), found].concat()).is_err());
}

#[test]
fn the_lines_are_those_of_kafka() {
    let latencies = (0..1000).map(Duration::from_millis).collect();
    assert_eq!(
        results(latencies),
        [
            "Avg latency: 499.5000 ms",
            "Percentiles: 50th = 500, 99th = 990, 99.9th = 999"
        ]
    );
}
