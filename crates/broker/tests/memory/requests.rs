//! Large requests: `queued.max.request.bytes`.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use milena_protocol::ApiKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::harness::TestBroker;
use crate::raw::{PATIENCE, assert_alive, framed, raw};
use crate::{ALONE, resident_bytes};

const MIB: usize = 1024 * 1024;
const LIMITS: [(&str, &str); 2] = [
    ("socket.request.max.bytes", "1048576"),
    ("queued.max.request.bytes", "2097152"),
];

/// ApiVersions v0, whose body is empty, and as many bytes behind it as nobody reads.
fn large_request() -> Bytes {
    let mut body = BytesMut::with_capacity(MIB);
    body.put_i16(ApiKey::ApiVersions.code());
    body.put_i16(0);
    body.put_i32(7);
    body.put_i16(-1);
    body.resize(MIB, 0);
    framed(&body)
}

async fn answer(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let answer = async {
        let size = stream.read_u32().await?;
        let mut answer = vec![0; size as usize];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    };
    tokio::time::timeout(PATIENCE, answer).await.expect("an answer")
}

/// Time goes on only where nobody has anything to do, so that what can be read is read then.
async fn quiet() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn requests_that_arrive_together_take_no_more_memory_than_the_limit() {
    const CONNECTIONS: usize = 64;
    let _alone = ALONE.lock().await;
    let broker = TestBroker::with(&LIMITS).await;
    let request = large_request();
    assert_alive(&broker).await;
    let before = resident_bytes();
    let (finish, finished) = watch::channel(false);
    let mut clients = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let mut stream = raw(&broker).await;
        let (request, mut finished) = (request.clone(), finished.clone());
        clients.spawn(async move {
            let (most, last) = request.split_at(request.len() - 1);
            stream.write_all(most).await.unwrap();
            finished.wait_for(|finished| *finished).await.unwrap();
            stream.write_all(last).await.unwrap();
            answer(&mut stream).await.unwrap().len()
        });
    }
    quiet().await;
    let grown = resident_bytes().saturating_sub(before);
    assert!(
        grown <= 2 * MIB + CONNECTIONS * 256 * 1024,
        "grew by {grown} bytes"
    );
    // All of them come to their turn.
    finish.send_replace(true);
    while let Some(answered) = clients.join_next().await {
        assert!(answered.unwrap() > 8);
    }
}

#[tokio::test(start_paused = true)]
async fn who_stops_sending_what_it_has_memory_for_is_given_up_when_others_wait() {
    let _alone = ALONE.lock().await;
    let broker = TestBroker::with(&LIMITS).await;
    let request = large_request();
    let mut stalled = Vec::new();
    for _ in 0..2 {
        let mut stream = raw(&broker).await;
        stream.write_all(&request[..MIB / 2]).await.unwrap();
        stalled.push(stream);
    }
    assert_alive(&broker).await;
    let mut other = raw(&broker).await;
    other.write_all(&request).await.unwrap();
    assert!(answer(&mut other).await.unwrap().len() > 8);
    let mut closed = 0;
    for stream in &mut stalled {
        let rest = stream.write_all(&request[MIB / 2..]).await;
        if rest.is_err() || answer(stream).await.is_err() {
            closed += 1;
        }
    }
    assert!(closed > 0, "memory was there without anybody's being given up");
}

#[tokio::test(start_paused = true)]
async fn who_is_slow_is_waited_for_while_nobody_wants_its_memory() {
    let _alone = ALONE.lock().await;
    let broker = TestBroker::with(&LIMITS).await;
    let request = large_request();
    let mut slow = raw(&broker).await;
    for piece in request.chunks(MIB / 3) {
        slow.write_all(piece).await.unwrap();
        tokio::time::sleep(PATIENCE).await;
    }
    assert!(answer(&mut slow).await.unwrap().len() > 8);
}

#[tokio::test]
async fn small_elements_do_not_buy_much_memory() {
    let _alone = ALONE.lock().await;
    let broker = TestBroker::start().await;
    // DeleteGroups v2: names of no bytes, one byte each on the wire.
    const NAMES: usize = 60 * MIB;
    let mut body = BytesMut::with_capacity(NAMES + 64);
    body.put_i16(ApiKey::DeleteGroups.code());
    body.put_i16(2);
    body.put_i32(7);
    body.put_i16(-1);
    body.put_u8(0);
    let mut count = NAMES + 1;
    while count >= 0x80 {
        body.put_u8(u8::try_from(count & 0x7f).unwrap() | 0x80);
        count >>= 7;
    }
    body.put_u8(u8::try_from(count).unwrap());
    body.put_bytes(1, NAMES);
    body.put_u8(0);
    let request = framed(&body);
    drop(body);
    let before = resident_bytes();
    let mut stream = raw(&broker).await;
    let _ = stream.write_all(&request).await;
    assert!(answer(&mut stream).await.is_err(), "the connection is closed");
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 3 * NAMES, "grew by {grown} bytes");
    assert_alive(&broker).await;
}
